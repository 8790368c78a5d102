"""The interpreter of a container's exec server: the host's, mounted read-only at /.crrl.

An image may have no Python, another version, or a modified one. The host's, with its loader and libraries, runs in any
image of this machine's architecture, whatever its C library. Only the modules in use are copied, which saves 26 MB.
Made once, cached by content below the sandbox's state folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox.availability import PYTHON
from crrl.sandbox.whole import whole

HERE = Path(__file__).parent
SOURCES = (*(HERE.parent / f"{name}.py" for name in ("pid1", "memory_use", "memory_watch")), HERE / "init.py")
LOADER = "lib/loader"
NEEDED = "import os, sys, time, resource, select, ctypes, marshal, _socket, _ctypes, encodings.ascii, warnings"
FILES = f"{NEEDED}\nfor m in list(sys.modules.values()):\n    if getattr(m, '__file__', None): print(m.__file__)"
COMPILE = "import sys, py_compile\npy_compile.compile(sys.argv[1], sys.argv[2], dfile=sys.argv[3], doraise=True)"


def command(version: str) -> list[str]:
    """What the container runs."""
    library = f"/.crrl/lib/python{version}"
    loader = [f"/.crrl/{LOADER}", "--library-path", "/.crrl/lib", "/.crrl/bin/python3"]
    return [*loader, "-ISE", f"{library}/init.pyc"]


def make(state_dir: Path) -> tuple[Path, str]:
    """(folder to show at /.crrl, version as in `3.11`). Blocking. Raises CrrlError."""
    text = b"".join(source.read_bytes() for source in SOURCES)
    info = Path(PYTHON).stat()
    key = hashlib.sha256(text + f"{info.st_mtime_ns} {info.st_size}".encode()).hexdigest()[:16]
    made = state_dir / f"container-python-{key}"
    if not made.is_dir():
        with whole(made, "container-python-new-") as folder:
            _fill(folder)
    (library,) = made.glob("lib/python3.*")
    return made, library.name.removeprefix("python")


def _fill(folder: Path) -> None:
    library = Path(_asked([PYTHON, "-ISE", "-c", "import os; print(os.__file__)"]).strip()).parent
    inside = folder / "lib" / library.name
    for name in ("bin", "disk", "door", "layer"):  # the last three: where something is mounted
        (folder / name).mkdir()
    inside.mkdir(parents=True)
    binary = Path(PYTHON).resolve()
    shutil.copy(binary, folder / "bin" / "python3")
    loaded = [binary]
    for file in map(Path, _asked([PYTHON, "-ISE", "-c", FILES]).splitlines()):
        place = inside / file.relative_to(library)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
        loaded += [file] if file.suffix == ".so" else []
    for file in {path for binary in loaded for path in _libraries(binary)}:
        name = LOADER if file.name.startswith("ld-linux") else f"lib/{file.name}"
        shutil.copy(file, folder / name)
    for source in SOURCES:
        target = inside / source.with_suffix(".pyc").name
        subprocess.run([PYTHON, "-ISEc", COMPILE, str(source), str(target), source.name], check=True, cwd="/")
    for here, _, names in os.walk(folder):
        os.chmod(here, 0o755)
        for name in names:
            path = Path(here, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    if not (folder / LOADER).exists():
        raise CrrlError(f"{PYTHON} is not linked against a GNU C library.", "Containers need a host with glibc.")


def _libraries(binary: Path) -> list[Path]:
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", _asked(["ldd", str(binary)]))]


def _asked(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/").stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CrrlError(f"{argv[0]} does not run: {error}", f"Install {PYTHON} and ldd (libc-bin).") from error
