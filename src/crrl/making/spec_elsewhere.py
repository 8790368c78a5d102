"""Where a masked body could be read all the same: in another file of the box, or in a function that is nearly the same.

- Elsewhere (`Elsewhere`): at least `SHARE` of the body's lines stand close together in a file that the box shows: of
  the checkout (a copy, a build folder, a patch, an archive), of the environment (an installed copy, one that a tool has
  taken over), of the system's Python. The search runs inside the box (`elsewhere_search.py`).
- Nearly the same (`near_duplicates`): Jaccard index of runs of `RUN` tokens at least `SIMILAR`, local names and
  parameters taken as equal. Both are left out: each would show the other's body.
"""

from __future__ import annotations

import asyncio
import json
import keyword
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crrl.errors import LostError
from crrl.making import elsewhere_search
from crrl.making.spec_mask import Masked
from crrl.sandbox.api import Limits, Sandbox, Spec
from crrl.sandbox.availability import PYTHON
from crrl.task import Task
from crrl.tasks.setup.environments import Environments
from crrl.tasks.setup.setting import setting_of

RUN, SIMILAR = 5, 0.7
TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\w+|[^\w\s]")
KEPT = frozenset(keyword.kwlist) | {
    *("catch", "const", "do", "fn", "func", "function", "go", "instanceof", "let", "match", "mut", "new", "null"),
    *("self", "switch", "this", "throw", "true", "false", "typeof", "undefined", "var"),
}
"""Words of a language: the other names of a body are its own."""
LIMITS = Limits(memory_bytes=2 << 30)
TIMEOUT_S = 600.0
ASKED, SEARCH = ".crrl-asked.json", ".crrl-search.py"


@dataclass(frozen=True)
class Place:
    """A function of the project, by the lines of its body."""

    path: str
    name: str
    first: int
    last: int

    def holds(self, other: Place) -> bool:
        """Or is held by: one is nested in the other."""
        return self.path == other.path and self.first <= other.last and other.first <= self.last


def near_duplicates(bodies: Mapping[Place, Sequence[str]]) -> dict[Place, tuple[Place, float]]:
    """The nearest other function of those that have one as near as `SIMILAR`."""
    runs = {place: _runs(lines) for place, lines in bodies.items()}
    having: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for place, own in runs.items():
        for run in own:
            having[run].append(place)
    found: dict[Place, tuple[Place, float]] = {}
    for place, own in runs.items():
        shared = Counter(other for run in own for other in having[run] if not other.holds(place))
        for other, number in shared.most_common():
            score = number / (len(own) + len(runs[other]) - number)
            if score >= max(SIMILAR, found[place][1] + 1e-9 if place in found else 0.0):
                found[place] = (other, score)
    return found


def _runs(lines: Sequence[str]) -> set[tuple[str, ...]]:
    tokens = _tokens("\n".join(lines))
    return {tuple(tokens[at : at + RUN]) for at in range(max(1, len(tokens) - RUN + 1))}


def _tokens(text: str) -> list[str]:
    """Names that are neither called, nor members, nor keywords become one."""
    words = TOKEN.findall(text)
    found = []
    for place, word in enumerate(words):
        called = place + 1 < len(words) and words[place + 1] == "("
        member = place > 0 and words[place - 1] == "."
        local = re.match(r"[A-Za-z_]", word) and not called and not member and word not in KEPT
        found.append("name" if local else word)
    return found


async def elsewhere(
    candidates: Mapping[str, Masked], task: Task, boxes: Sandbox, environments: Environments
) -> dict[str, str]:
    """Name -> the file of the box that shows the body, or its own file, outside of it. Raises CrrlError, LostError."""
    asked = [_asked(one) for one in candidates.values()]
    setting = await setting_of(task, environments)
    box = await boxes.start(Spec(await boxes.prepare(task.source), setting.mounts, LIMITS, env=setting.env))
    try:
        await box.write(ASKED, json.dumps(asked).encode())
        await box.write(SEARCH, await asyncio.to_thread(Path(elsewhere_search.__file__).read_bytes))
        search = [PYTHON, "-I", SEARCH, ASKED]
        result = await box.exec(search, timeout_s=TIMEOUT_S, output_limit=16 << 20)
    finally:
        await box.close()
    if result.reason != "exit" or result.code != 0:
        raise LostError("sandbox_died", f"the box was not searched ({result.reason}): {result.output[-300:]}")
    places = json.loads(result.output.splitlines()[-1])
    found = {name: place for name, place in zip(candidates, places, strict=True) if place}
    for name, one in candidates.items():
        lines = one.data.decode("utf-8", "replace").splitlines()
        if name not in found and elsewhere_search.shows(lines, [elsewhere_search.wanted(_asked(one))]):
            found[name] = one.function.path
    return found


def _asked(one: Masked) -> dict:
    return {"name": one.function.name.rpartition(".")[2], "path": one.function.path, "lines": list(one.body)}
