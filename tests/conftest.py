"""What several rooms need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from crrl import sandbox
from crrl.rewards.task_judge import TaskJudge
from crrl.sandbox.by_image import ByImage

# The same examples every time, but for `make fuzz`, which draws new ones.
settings.register_profile("fuzz", derandomize=False)
settings.register_profile("test", derandomize=True, database=None)
settings.load_profile("fuzz" if "CRRL_FUZZ" in os.environ else "test")


@pytest.fixture(scope="session")
def state_dir() -> Iterator[Path]:
    """For sandboxes and judges: readable by the uid they drop to, unlike pytest's own temporary folder. What somebody
    installed on this machine is in it, too."""
    with tempfile.TemporaryDirectory(prefix="crrl-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        if (installed := sandbox.default_state_dir() / "toolchains").is_dir():
            Path(folder, "toolchains").symlink_to(installed)
        yield Path(folder)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real records of corpora and agents: CRRL_TEST_DATA, by default ../shared/data. CI must have them."""
    folder = Path(os.environ.get("CRRL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no test data at {folder} (set CRRL_TEST_DATA)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder


@pytest.fixture
def images() -> str:
    """The container engine of `boxes`; tests with images override it."""
    return "auto"


@pytest.fixture
def network() -> bool:
    """Whether set-ups may use it."""
    return True


@pytest.fixture
async def boxes(state_dir: Path, images: str) -> AsyncIterator[ByImage]:
    """The sandbox of a run."""
    boxes = sandbox.make(state_dir=state_dir, images=images)
    yield boxes
    await boxes.close()


@pytest.fixture
async def task_judge(state_dir: Path, boxes: ByImage, network: bool) -> AsyncIterator[TaskJudge]:
    """The judge of any task, over real boxes."""
    judge = TaskJudge(state_dir, boxes, network=network)
    yield judge
    await judge.close()
