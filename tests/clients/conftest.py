"""A gateway over a script, and the programs that use it through official client libraries."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_kit import Bench, make_tokenizer

from crrl.gateway import Renderer, load_renderer
from crrl.sandbox import default_state_dir

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return load_renderer(make_tokenizer(), "qwen3")


@pytest.fixture
async def bench(renderer: Renderer) -> AsyncIterator[Bench]:
    bench = Bench(renderer)
    yield bench
    await bench.stop()
    await bench.close()


@pytest.fixture(scope="session")
def node_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node clients, where they find their libraries: those of package.json, installed once, outside HOME."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: the Node libraries cannot be installed")
    installed = default_state_dir() / "agents" / "client-libraries"
    installed.mkdir(parents=True, exist_ok=True)
    wanted, stamp = (PROGRAMS / "package.json").read_text(), installed / ".installed"
    with (installed / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            (installed / "package.json").write_text(wanted)
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            done = subprocess.run(command, cwd=installed, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            stamp.write_text(wanted)
    folder = tmp_path_factory.mktemp("node")  # Node looks for libraries beside the program
    for program in PROGRAMS.glob("*.mjs"):
        shutil.copy(program, folder)
    os.symlink(installed / "node_modules", folder / "node_modules")
    return folder
