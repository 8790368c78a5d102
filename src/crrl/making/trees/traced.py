"""Languages whose test files can be made to note the calls that they make: traces with the fault and without."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crrl.making.tracing import Call, Trace
from crrl.making.trees.toolchain import Boxes, Toolchain

VARIES = "<varies>"


class Traced(Toolchain):
    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        super().__init__(tree, arguments)
        self._right: dict[str, dict[str, Trace]] = {}

    @abstractmethod
    async def traces(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> dict[str, Trace]:
        """As `compared`, of one run."""

    async def compared(
        self, boxes: Boxes, changed: Mapping[str, bytes], suite: str, known: frozenset[str]
    ) -> tuple[dict[str, Trace], dict[str, Trace]]:
        if suite not in self._right:
            twice = [await self.traces(boxes, {}, suite, known) for _ in range(2)]
            self._right[suite] = _steady(*twice)
        right = self._right[suite]
        return (await self.traces(boxes, changed, suite, known) if right else {}), right


def _steady(one: dict[str, Trace], other: dict[str, Trace]) -> dict[str, Trace]:
    """Traces of two runs of the same code: what differs (times, ports) says nothing, and is an object of which nothing
    is known; where they go apart they end."""
    found = {}
    for name in one.keys() & other.keys():
        calls: list[Call] = []
        for a, b in zip(one[name].calls, other[name].calls, strict=False):
            if (a.name, a.line, a.args) != (b.name, b.line, b.args):
                break
            calls.append(a if a == b else replace(a, returned=VARIES, error=None, after={}))
        found[name] = Trace(tuple(calls))
    return found
