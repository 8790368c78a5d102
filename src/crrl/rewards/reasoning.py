"""Reward `reasoning`: whether the answer reasons between marks, and then answers between others, in [0, 1].

    <think>
    why
    </think>
    <answer>
    what
    </answer>

`strict`: 1.0 for exactly this, nothing before or after, both parts with words in them; else 0.0. Otherwise a quarter
for each mark that stands once, in this order, where both parts have words. (The first CodeRepairRL's strict form
allowed one line of answer, so it was always 0 for repairs; its partial form paid for marks with nothing between them.)
Gamed by reasoning that says nothing: `words` is the least number of different words in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crrl.gateway.api import Sample
from crrl.rewards.api import TestResults
from crrl.task import Task

MARKS = ("<think>", "</think>", "<answer>", "</answer>")
_STRICT = re.compile(r"\s*<think>(.+?)</think>\s*<answer>(.+?)</answer>\s*", re.DOTALL)


@dataclass(frozen=True)
class Reasoning:
    """`words`: different ones that the reasoning has at least."""

    strict: bool = False
    words: int = 8

    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        if results is None or not results.trace.said:
            return None
        said = results.trace.said
        once = [said.count(mark) == 1 for mark in MARKS]
        if self.strict:
            match = _STRICT.fullmatch(said) if all(once) else None
            return float(match is not None and self._worth(match[1], match[2]))
        places = [said.find(mark) for mark in MARKS]
        thought = _between(said, "<think>", "</think>" if once[1] else "<answer>")
        answer = _between(said, "<answer>", "</answer>")
        if not self._worth(thought, answer) or (present := [x for x in places if x >= 0]) != sorted(present):
            return 0.0
        return sum(once) / len(MARKS)

    def _worth(self, thought: str, answer: str) -> bool:
        return len(set(re.findall(r"\w+", thought.lower()))) >= self.words and bool(re.search(r"\w", answer))


def _between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]
