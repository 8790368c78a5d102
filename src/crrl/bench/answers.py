"""`crrl bench answers`: what rewards of a patch and search/replace answers cost: CPU-milliseconds each.

Pairs of patches change 20 or 200 lines of one file, and agree in most of them; definitions that compare characters take
time by the square of the patch's length or worse, so they get the short ones only. Answers hold three blocks for a file
of 400 lines. Everything is drawn from a fixed seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crrl.agents.search_replace.apply import apply
from crrl.agents.search_replace.generate import generate
from crrl.agents.search_replace.parse import parse
from crrl.rewards.similarity import DEFINITIONS
from crrl.tasks.diffs import between

SHORT, LONG, LINES = 20, 200, 400
BY_LINES = "changed_lines"  # the one that also gets long patches
PAIRS, FEW = 1_000, 50
ANSWERS = 1_000
TARGET_S = 1.0
PATH = "src/shop.py"


@dataclass(frozen=True)
class AnswersBench:
    """CPU-milliseconds. `short`: definition -> of one pair of short patches; `long`: of `changed_lines` and long ones;
    `parse`, `apply`: of one answer."""

    short: dict[str, float]
    long: float
    parse: float
    apply: float

    def lines(self) -> list[str]:
        rows = [f"  {name:16}{SHORT:4} lines {_told(ms)}" for name, ms in self.short.items()]
        return [
            f"Similarity of two patches (target for {BY_LINES}, {LONG} lines: 1,000 in {TARGET_S:g} s):",
            *rows,
            f"  {BY_LINES:16}{LONG:4} lines {_told(self.long)}",
            f"Answers of three search/replace blocks, a file of {LINES} lines:",
            f"  {'parse':26} {_told(self.parse)}",
            f"  {'apply':26} {_told(self.apply)}",
        ]


def bench() -> AnswersBench:
    rng = random.Random("answers")
    pairs = {count: [_pair(rng, count) for _ in range(50)] for count in (SHORT, LONG)}
    short = {
        name: _cpu_ms(similar, pairs[SHORT], PAIRS if name == BY_LINES else FEW)
        for name, similar in DEFINITIONS.items()
    }
    files = [_file(rng) for _ in range(50)]
    answers = [generate(PATH, "\n".join(of), "\n".join(_edited(rng, of, 3))) for of in files]
    parsed = [(parse(answer).blocks, {PATH: "\n".join(of)}) for answer, of in zip(answers, files, strict=True)]
    return AnswersBench(
        short,
        long=_cpu_ms(DEFINITIONS[BY_LINES], pairs[LONG], PAIRS),
        parse=_cpu_ms(parse, [(answer,) for answer in answers], ANSWERS),
        apply=_cpu_ms(apply, parsed, ANSWERS),
    )


def _cpu_ms(work: Callable[..., object], inputs: Sequence[tuple[Any, ...]], times: int) -> float:
    start = time.process_time()
    for number in range(times):
        work(*inputs[number % len(inputs)])
    return 1_000 * (time.process_time() - start) / times


def _told(ms: float) -> str:
    return f"{ms:9.3f} ms   1,000 in {ms:7.2f} s"


def _file(rng: random.Random) -> list[str]:
    return [f"    value_{i} = compute_{rng.randrange(40)}(value_{rng.randrange(LINES)}, {i})" for i in range(LINES)]


def _edited(rng: random.Random, lines: Sequence[str], places: int) -> list[str]:
    """So many lines, apart from each other, written anew."""
    changed = list(lines)
    for place in rng.sample(range(0, LINES, 2), places):
        changed[place] = f"    value_{place} = repaired_{rng.randrange(1000)}(value_{rng.randrange(LINES)})"
    return changed


def _pair(rng: random.Random, changed: int) -> tuple[str, str]:
    """Two patches of one file that remove and add so many lines together, four fifths of which they share."""
    before = _file(rng)
    one = _edited(rng, before, changed // 2)
    other = [line if rng.random() < 0.8 else old for line, old in zip(one, before, strict=True)]
    text = ["\n".join([*lines, ""]) for lines in (before, one, other)]
    return between(PATH, text[0], text[2]), between(PATH, text[0], text[1])
