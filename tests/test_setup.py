"""`make setup TORCH=system`: an environment that uses a torch which is already there, or an error that says why not."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
SITE = Path(torch.__file__).parents[1]


def environment(folder: Path, path: Path | None = None) -> Path:
    """A new one; `path` is what its Python finds beside its own packages."""
    venv.create(folder, symlinks=True)
    if path is not None:
        (site(folder) / "more.pth").write_text(f"{path}\n")
    return folder / "bin" / "python"


def site(folder: Path) -> Path:
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def a_torch(folder: Path, version: str) -> Path:
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (folder / f"torch-{version}.dist-info").mkdir()
    (folder / f"torch-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
    )
    return folder


def use(python: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, ROOT / "scripts" / "system_torch.py", target], capture_output=True, text=True)


def test_the_environment_sees_the_systems_torch_and_pip_keeps_it(tmp_path: Path) -> None:
    system = environment(tmp_path / "system", SITE)
    environment(tmp_path / "venv")
    done = use(system, tmp_path / "venv")
    assert done.returncode == 0 and f"torch {metadata.version('torch')}" in done.stderr, done.stderr
    python = tmp_path / "venv" / "bin" / "python"
    seen = subprocess.run(
        [python, "-c", "import torch; print(torch.__file__, torch.ones(2).sum().item())"],
        capture_output=True,
        text=True,
    )
    assert seen.stdout.split() == [torch.__file__, "2.0"], seen.stderr
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--dry-run", "--no-deps"]
    kept = subprocess.run([*pip, "torch>=2.11"], capture_output=True, text=True)
    assert "already satisfied: torch" in kept.stdout, kept.stdout + kept.stderr


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    target = tmp_path / "venv"
    environment(target)
    none = use(environment(tmp_path / "none"), target)
    assert none.returncode == 1 and "has no torch" in none.stderr and "PYTHON=" in none.stderr
    old = use(environment(tmp_path / "old", a_torch(tmp_path / "packages", "2.10.1+cu126")), target)
    assert old.returncode == 1 and "2.10.1+cu126" in old.stderr and "2.11 or later" in old.stderr
    assert not (site(target) / "system-torch.pth").exists()
    new = environment(tmp_path / "new", a_torch(tmp_path / "newer", "2.12.0"))
    a_torch(site(target), "2.13.0")
    own = use(new, target)
    assert own.returncode == 1 and "a torch of its own" in own.stderr and "make clean" in own.stderr
    gone = use(new, environment(tmp_path / "fresh").parents[1])
    assert gone.returncode == 0, gone.stderr
