"""Which options pytest needs to run a project's tests here, as the judge does: with the plugins of its environment, but
those that steer or measure runs (coverage, parallel runs, random order); what its own configuration asks for that is
not here, switched off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from crrl.errors import CrrlError
from crrl.rewards.task_judge import SITE
from crrl.sandbox.api import Box, ExecResult
from crrl.tasks.setup.environments import Environment

BAD_USAGE = 4  # pytest's exit code
PYTEST = [
    "python3",
    "-c",
    f"import sys; sys.path.insert(0, {SITE!r}); import pytest; sys.path.append(sys.path.pop(0)); "
    "sys.exit(pytest.main(sys.argv[1:]))",
]
"""`python3 -m pytest` with the judge's pytest, its packages behind the project's own, as in the judge: a project
may be one of those that pytest itself needs."""
LEFT_OUT = """
from importlib.metadata import entry_points
left_out = ("pytest-xdist", "pytest-randomly", "pytest-random-order", "pytest-sugar", "pytest-instafail")
left_out += ("pytest-memray",)  # measures, and wants the cache of pytest, which the judge does without
for plugin in entry_points(group="pytest11"):
    name = plugin.dist.name.lower().replace("_", "-")
    if name in left_out:
        print("-p", f"no:{plugin.name}")
    elif name == "pytest-cov":
        print("--no-cov")
"""
LADDER: tuple[tuple[str, ...], ...] = (
    (),
    ("-o", "addopts="),  # options of plugins that are not here (--cov)
    ("-o", "addopts=", "-o", "required_plugins=", "-o", "minversion="),
    ("-o", "addopts=", "-o", "required_plugins=", "-o", "minversion=", "-o", "filterwarnings=default"),
)
PART_OF_PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig")
Run = Callable[[Sequence[str]], Awaitable[ExecResult]]


def refuse_part_of_pytest(tree: Path) -> None:
    """Raises CrrlError for a project that the judge's pytest has imported before any test runs."""
    for name in PART_OF_PYTEST:
        if any((place / name).is_dir() or (place / f"{name}.py").is_file() for place in (tree, tree / "src")):
            raise CrrlError(
                f"The judge's own pytest runs on {name}: its tests would test the judge's copy.",
                "Mine its history with a command of its own: crrl tasks mine REPO "
                "test='python3 -m pytest --junitxml=.crrl/report.xml TESTS test_CRRL_CANARY.py'",
            )


def plugins_env(environment: Environment | None) -> dict[str, str]:
    """Without an environment of the project's there is no plugin to load."""
    return {} if environment is not None else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


async def left_out(box: Box, environment: Environment | None) -> list[str]:
    """Arguments that keep out plugins of the environment that the box shows."""
    if environment is None:
        return []
    result = await box.exec(["python3", "-c", LEFT_OUT])
    return [word for line in dict.fromkeys(result.output.splitlines()) for word in line.split()]


async def first_that_runs(run: Run, out: Sequence[str]) -> tuple[list[str], ExecResult]:
    """The first options under which pytest begins at all, and that run; the last where it does not."""
    for switched in LADDER:
        options = [*out, *switched]
        result = await run(options)
        if result.code != BAD_USAGE:
            break
    return options, result
