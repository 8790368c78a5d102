"""Which options pytest needs to run a project's tests here: plugins of its environment, loaded by name; what its own
configuration asks for that is not here, switched off.

The judge loads no plugin by itself. What steers or measures runs (coverage, parallel runs, random order) stays out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from crrl.sandbox.api import Box, ExecResult

BAD_USAGE = 4  # pytest's exit code
PLUGINS = """
from importlib.metadata import entry_points
left_out = ("pytest-cov", "pytest-xdist", "pytest-randomly", "pytest-random-order", "pytest-sugar", "pytest-instafail")
for plugin in entry_points(group="pytest11"):
    if plugin.dist.name.lower().replace("_", "-") not in left_out:
        print(plugin.module)
"""
LADDER: tuple[tuple[str, ...], ...] = (
    (),
    ("-o", "addopts="),  # options of plugins that are not here (--cov)
    ("-o", "addopts=", "-o", "required_plugins=", "-o", "minversion="),
    ("-o", "addopts=", "-o", "required_plugins=", "-o", "minversion=", "-o", "filterwarnings=default"),
)
Run = Callable[[Sequence[str]], Awaitable[ExecResult]]


async def plugins(box: Box) -> list[str]:
    """Arguments that load those of the environment that the box shows."""
    result = await box.exec(["python3", "-c", PLUGINS])
    return [word for module in dict.fromkeys(result.output.split()) for word in ("-p", module)]


async def first_that_runs(run: Run, loaded: Sequence[str]) -> tuple[list[str], ExecResult]:
    """The first options under which pytest begins at all, and that run; the last where it does not."""
    for switched in LADDER:
        options = [*loaded, *switched]
        result = await run(options)
        if result.code != BAD_USAGE:
            break
    return options, result
