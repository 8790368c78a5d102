"""The calls that tests make, with their values, on the tree with the fault and on the one without: where they part.

A test's own words do not say which side of a comparison is right, or what a helper compares. The run without the fault
does: the first call that goes in equal and comes out unequal is what went wrong, and what it gives there is expected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crrl.errors import LostError
from crrl.making.pytest_options import PYTEST, plugins_env
from crrl.sandbox.api import Mount, Sandbox, Spec
from crrl.task import Source
from crrl.tasks.setup import environments
from crrl.tasks.setup.environments import Environment

REPORT = ".crrl-trace.json"
REPORT_BYTES = 64 << 20
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Call:
    """What went in and what came out. `kind`: the class of `self`, of which it may be a `property`; `error`: type and
    message of what it raised; `after`: what it may have changed, afterwards; `awaited`: of a coroutine; `local`: of a
    function that another one made, which is called by other names than its own; `untyped`: reprs among its arguments
    that look like calls which one could make, and are none."""

    name: str
    path: str
    line: int
    args: tuple[tuple[str, str], ...]
    kind: str = ""
    returned: str | None = None
    yielded: tuple[str, ...] | None = None
    error: tuple[str, str] | None = None
    after: Mapping[str, str] = field(default_factory=dict)
    property: bool = False
    awaited: bool = False
    local: bool = False
    untyped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """Of one test. `error`: type and message of what it ended with; `depth`: the least number of the project's frames
    between the test and the fault, None where that was not run; `params`: of a parametrised test, with their values."""

    calls: tuple[Call, ...]
    error: tuple[str, str] | None = None
    depth: int | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """The call that goes wrong, and how it goes right. `what`: returned, yielded, error, or the name of what differs
    afterwards."""

    wrong: Call
    right: Call
    what: str


def differences(wrong: Trace, right: Trace) -> Iterator[Difference]:
    """Calls that go in equal and come out unequal, in their order."""
    for bad, good in zip(wrong.calls, right.calls, strict=False):
        if (bad.name, bad.path, bad.args) != (good.name, good.path, good.args):
            return
        if good.untyped:
            args = tuple((name, _as_objects(value, good.untyped)) for name, value in good.args)
            bad, good = replace(bad, args=args), replace(good, args=args)
        for what in ("error", "returned", "yielded"):
            if getattr(bad, what) != getattr(good, what):
                yield Difference(bad, good, what)
                break
        for name, value in good.after.items():
            if bad.after.get(name, value) != value:
                yield Difference(bad, good, name)
                break


class Tracer:
    """Runs tests with the plugin, one box a run. `spent_s`: CPU-seconds of these runs."""

    def __init__(self, boxes: Sandbox, state_dir: Path, site: Mount, environment: Environment | None) -> None:
        plugin = Path(__file__).with_name("trace_plugin.py").read_text()
        tools = environments.tool(state_dir, "coverage", {"crrl_trace.py": plugin})
        self._boxes, self.spent_s = boxes, 0.0
        self._mounts = [site, Mount(tools, "/tools"), *([environment.mount] if environment is not None else [])]
        self._env = {"PYTHONPATH": "/tools", **plugins_env(environment)}
        self._env |= {"CRRL_TRACE": f"/workspace/{REPORT}", "PYTHONHASHSEED": "0"}
        self._env |= environment.variables if environment is not None else {}

    async def run(
        self,
        source: Source,
        changed: Mapping[str, bytes],
        tests: Sequence[str],
        options: Sequence[str],
        faults: Sequence[tuple[str, int]],
        cpu_s: float = 30.0,
    ) -> dict[str, Trace]:
        """Test -> its trace. `changed`: files in place of the source's; `faults`: path and first line of functions;
        `cpu_s`: after which a test is stopped, and the run with it.

        A run that leaves no report gives none. Raises LostError where the box was lost, or got little of a core."""
        env = self._env | {"CRRL_FAULTS": json.dumps(faults), "CRRL_TRACE_CPU_S": str(cpu_s)}
        box = await self._boxes.start(Spec(await self._boxes.prepare(source), self._mounts, env=env))
        try:
            for path, data in changed.items():
                await box.write(path, data)
            run = [*PYTEST, "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "crrl_trace"]
            result = await box.exec([*run, *options, *tests], timeout_s=TIMEOUT_S, output_limit=1 << 16)
            self.spent_s += result.cpu_s
            if result.reason == "lost":
                raise LostError("sandbox_died", "the box was lost while tests were traced")
            if result.reason == "timeout" and result.cpu_s < TIMEOUT_S / 4:
                raise LostError("starved", f"traced tests had {result.cpu_s:.0f} of {TIMEOUT_S:.0f} s of a core")
            try:
                found = json.loads(await box.read(REPORT, limit=REPORT_BYTES))
            except (OSError, ValueError):
                return {}
        finally:
            await box.close()
        return {test: _trace(one) for test, one in found.items()}


def _trace(found: dict[str, Any]) -> Trace:
    calls = tuple(
        Call(
            call["name"],
            call["path"],
            call["line"],
            tuple((name, value) for name, value in call["args"]),
            call.get("kind", ""),
            call.get("returned"),
            tuple(call["yielded"]) if "yielded" in call else None,
            _error(call.get("error")),
            call.get("after", {}),
            call.get("property", False),
            call.get("awaited", False),
            call.get("local", False),
            tuple(call["untyped"]),
        )
        for call in found["calls"]
    )
    params = {name: _as_objects(value, found["untyped"]) for name, value in found["params"].items()}
    return Trace(calls, _error(found.get("error")), found.get("depth"), params)


def _as_objects(value: str, texts: Sequence[str]) -> str:
    """The value with these texts marked as what they are: objects that nobody can type."""
    for text in sorted(texts, key=len, reverse=True):
        if f"<{text}>" not in value:
            value = value.replace(text, f"<{text}>")
    return value


def _error(found: list[str] | None) -> tuple[str, str] | None:
    return (found[0], found[1]) if found else None
