"""One real sandbox for the room, over a state folder that the dropped uid can read."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from box_kit import SMALL

from crrl.sandbox.api import Spec, Workspace
from crrl.sandbox.bubblewrap import BubblewrapBox, BubblewrapSandbox
from crrl.task import Source

FILES = {"stats.py": "def f():\n    return 1\n", "tests/test_stats.py": "x = 1\n", "README.md": "hello\n"}


@pytest.fixture(scope="session")
def sandbox(state_dir: Path) -> Iterator[BubblewrapSandbox]:
    sandbox = BubblewrapSandbox(state_dir=state_dir)
    yield sandbox
    asyncio.run(sandbox.close())


@pytest.fixture
async def workspace(sandbox: BubblewrapSandbox) -> Workspace:
    return await sandbox.prepare(Source(files=FILES))


@pytest.fixture
async def box(sandbox: BubblewrapSandbox, workspace: Workspace) -> AsyncIterator[BubblewrapBox]:
    box = await sandbox.start(Spec(root=workspace, limits=SMALL))
    yield box
    await box.close()


@pytest.fixture
def apply(workspace: Workspace, tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of the workspace with a patch applied by git."""

    def run(patch: str) -> Path:
        tree = tmp_path / "fresh"
        subprocess.run(["cp", "-r", workspace.lower, tree], check=True)
        subprocess.run(["git", "apply", "-"], cwd=tree, input=patch.encode(), check=True)
        return tree

    return run
