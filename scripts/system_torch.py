"""Lets a virtual environment use the torch of the Python that runs this (`make setup TORCH=system`).

The folder that holds torch, and beside it what torch needs (CUDA's libraries, triton), comes last on the environment's
path: packages that the environment has of its own win. Usage: PYTHON scripts/system_torch.py VENV
"""

import importlib.util
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

OLDEST = (2, 11)


def main(venv: Path) -> str:
    """The error, or "" when `venv` uses this Python's torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return f"{sys.executable} has no torch. Name a Python that has one: make setup TORCH=system PYTHON=..."
    site = Path(spec.origin).parents[1]
    if tuple(int(part) for part in version("torch").split(".")[:2]) < OLDEST:
        return f"torch {version('torch')} in {site} is too old: {'.'.join(map(str, OLDEST))} or later is needed."
    (folder,) = venv.glob("lib/python*/site-packages")
    if folder.parent.name != f"python{sys.version_info.major}.{sys.version_info.minor}":
        return f"{venv} is of {folder.parent.name}, and {sys.executable} is not. Remove it first: make clean"
    (folder / "system-torch.pth").write_text(f"{site}\n")
    code = "import torch; print(torch.__file__)"
    found = subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True)
    if found.returncode:
        return f"{venv} cannot import the torch in {site}: {found.stderr.strip().splitlines()[-1]}"
    if Path(found.stdout.strip()).parents[1] != site:
        return f"{venv} has a torch of its own. Remove it first: make clean"
    print(f"setup: torch {version('torch')} of {site}", file=sys.stderr)
    return ""


if __name__ == "__main__":
    if error := main(Path(sys.argv[1])):
        sys.exit(f"setup: {error}")
