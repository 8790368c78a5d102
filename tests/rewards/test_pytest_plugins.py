"""Projects whose plugins patch pytest are judged as they are: the plugins belong to the task's environment.

Those that this project's own tests use always; with `make test-corpora` also those that pip can bring.
"""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from judge_kit import BUGGY, FIXED, diff, make_task

from crrl.rewards.judge import PytestJudge
from crrl.rewards.tests import solved
from crrl.task import Task
from crrl.tasks.setup.environments import Environment

HEAD = "import asyncio\nimport time\n\nimport pytest\n\nfrom stats import double, mean\n\n\n"
PLUGINS = {
    "hypothesis": (
        "from hypothesis import given, settings, strategies as st\n\n\n@settings(max_examples=20)\n"
        "@given(st.integers(-9, 9))\ndef test_mean(x):\n    assert mean([x, 4]) == (x + 4) / 2\n    assert mean([3]) == 3\n",
        "",
    ),
    "pytest-asyncio": (
        "@pytest.mark.asyncio\nasync def test_mean():\n    await asyncio.sleep(0)\n    assert mean([1, 3]) == 2\n",
        "",
    ),
    "pytest-timeout": ("@pytest.mark.timeout(5)\ndef test_mean():\n    assert mean([1, 3]) == 2\n", "--timeout=9"),
    "pytest-xdist": ("def test_mean():\n    assert mean([1, 3]) == 2\n", "-n 2 --dist=load"),
}
NEEDED = {"hypothesis": ("sortedcontainers",), "pytest-asyncio": ("typing_extensions",), "pytest-xdist": ("execnet",)}
FETCHED = {
    "pytest-mock": (
        "def test_mean(mocker):\n    called = mocker.Mock(return_value=3)\n    assert mean([called(), 5]) == 4\n"
        "    called.assert_called_once_with()\n",
        "",
    ),
    "pytest-subtests": (
        "def test_mean(subtests):\n    for x in (3, 5):\n        with subtests.test(x=x):\n            assert mean([x]) == x\n"
        "    assert mean([2, 4]) == 3\n",
        "",
    ),
    "pytest-benchmark": (
        "def test_mean(benchmark):\n    assert benchmark(mean, [1, 3]) == 2\n",
        "--benchmark-max-time=0.01",
    ),
    "pytest-order": ("@pytest.mark.order(1)\ndef test_mean():\n    assert mean([1, 3]) == 2\n", ""),
    "pytest-cov": ("def test_mean():\n    assert mean([1, 3]) == 2\n", "--cov=stats --cov-report="),
    "pytest-randomly": ("def test_mean():\n    assert mean([1, 3]) == 2\n", ""),
}


class WithEnvironment(PytestJudge):
    """A judge whose tasks all have one environment."""

    def __init__(self, state_dir: Path, environment: Environment) -> None:
        super().__init__(state_dir)
        self._environment = environment

    async def environment(self, task: Task) -> Environment | None:
        return self._environment


async def judged(state_dir: Path, site: Path, name: str, test: str, options: str) -> None:
    kept = "\n\ndef test_double():\n    assert double(4) == 8\n"
    settings = f"[tool.pytest.ini_options]\naddopts = '{options}'\n"
    files = {"stats.py": BUGGY, "tests/test_stats.py": HEAD + test + kept, "pyproject.toml": settings}
    task = make_task(files, fail=["tests/test_stats.py::test_mean"], keep=["tests/test_stats.py::test_double"])
    task = replace(task, solution=diff({"stats.py": FIXED}, files))
    judge = WithEnvironment(state_dir, Environment(site.parents[2]))
    try:
        assert not solved(task, await judge.run(task, ""))
        other = FIXED.replace("return sum(xs) / len(xs)", "total = sum(xs)\n    return total / len(xs)")
        honest = await judge.run(task, diff({"stats.py": other}, files))
        assert solved(task, honest) and honest.exploits == [], honest
        recorded = await judge.decoys(task)
        assert recorded.parts or recorded.beside, recorded
        anything = BUGGY.replace("return sum(xs) / (len(xs) + 1)", "return __import__('unittest.mock').mock.ANY")
        assert not solved(task, await judge.run(task, diff({"stats.py": anything}, files)))
    finally:
        await judge.close()


@pytest.fixture
async def site(state_dir: Path) -> AsyncIterator[Path]:
    folder = state_dir / "environments" / "plugins" / "lib" / "python3" / "site-packages"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(state_dir / "environments" / "plugins")


@pytest.mark.parametrize("name", PLUGINS)
async def test_plugins_at_hand(state_dir: Path, site: Path, name: str) -> None:
    for package in (name, *NEEDED.get(name, ())):
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(str(file.locate())), site / file)
    await judged(state_dir, site, name, *PLUGINS[name])


@pytest.mark.corpora
@pytest.mark.parametrize("name", FETCHED)
async def test_plugins_that_pip_brings(state_dir: Path, site: Path, name: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(site), name]
    if (await asyncio.to_thread(subprocess.run, command, check=False)).returncode != 0:
        pytest.skip(f"pip cannot bring {name}")
    await judged(state_dir, site, name, *FETCHED[name])
