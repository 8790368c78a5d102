"""The judge's own read-only folder: pytest and what it needs, the zygote, the seccomp program.

Content-addressed under `state_dir/harness/<hash>/`, made once, readable by the dropped uid (a virtual
environment under a home of mode 0700 is not). The hash is the harness version: a verdict is comparable with
another only under the same one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox.whole import whole

NEEDS = ("pluggy", "iniconfig", "packaging", "pygments")
PACKAGES = ("pytest", "_pytest", *NEEDS)
HERE = Path(__file__).parent
SCRIPTS = (
    *(HERE / f"{name}.py" for name in ("zygote", "judged_init", "inside")),
    *(HERE.parent / "sandbox" / f"{name}.py" for name in ("memory_use", "memory_watch")),
)


@dataclass(frozen=True)
class Harness:
    path: Path
    version: str
    python: str


def build(state_dir: Path, seccomp: bytes, python: str = "/usr/bin/python3") -> Harness:
    """Make the folder, or find it made. Atomic: a half-made one is never seen."""
    version = _version(seccomp, python)
    path = state_dir / "harness" / version
    if path.is_dir():
        return Harness(path, version, python)
    with whole(path) as made:
        site = made / "site"
        site.mkdir(parents=True)
        for source in _package_folders():
            shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        # pytest's stand-in for the `py` library: a single file beside its packages
        shutil.copyfile(_package_folders()[0].with_name("py.py"), site / "py.py")
        for script in SCRIPTS:
            shutil.copyfile(script, made / script.name)
        (made / "seccomp.bpf").write_bytes(seccomp)
        compiled = [str(site / name) for name in PACKAGES if name != "pygments"]
        command = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
        # the lexers of some hundred languages are not needed: only what pytest itself imports is compiled
        subprocess.run([*command, *compiled, str(made / "inside.py")], check=True)
        subprocess.run([*command, "-l", str(site / "pygments")], check=True)
        for folder_name, _, files in os.walk(made):
            os.chmod(folder_name, 0o755)
            for file in files:
                os.chmod(os.path.join(folder_name, file), 0o644)
    return Harness(path, version, python)


@cache
def _package_folders() -> tuple[Path, ...]:
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise CrrlError(f"The judge needs the Python package '{name}'.", "Install it: pip install pytest")
        found.append(Path(spec.submodule_search_locations[0]))
    return tuple(found)


@cache
def _version(seccomp: bytes, python: str) -> str:
    digest = hashlib.sha256(seccomp)
    digest.update(subprocess.run([python, "-VV"], check=True, capture_output=True).stdout)
    for script in (*SCRIPTS, Path(__file__)):
        digest.update(script.read_bytes())
    for folder in _package_folders():
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(folder.parent)}:{file.stat().st_size}\n".encode())
        digest.update((folder / "__init__.py").read_bytes())
    return digest.hexdigest()[:16]
