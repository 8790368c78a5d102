"""Reward `cited_lines`: the lines that an answer cites, against those that the fix changes, in [-1, 1].

    vulnerable, and said to be: share of the fix's lines cited - share of the other lines cited
    not vulnerable, but said to be, with lines: -1

(Youden's J, 1950; also "informedness".) Citing all lines, none, or any at random has 0 on average. None where the fix
is not known. Gamed by citing the same place in every function, but for the second line, which takes that back: an
answer that is the same for both versions of a pair has at most 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.gateway.api import Sample
from crrl.label import Answer, Label
from crrl.rewards.api import TestResults
from crrl.rewards.label_judge import answer_in
from crrl.task import Task


class CitedLines:
    def __call__(self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]) -> float | None:
        truth = task.test.label
        if truth is None or not truth.lines:
            return None
        answer = answer_in(patch)
        if answer is None or answer.label != "vulnerable" or not answer.lines:
            return 0.0
        return informedness(answer, truth, _count(task)) if truth.vulnerable else -1.0


def informedness(answer: Answer, truth: Label, count: int) -> float:
    """Of the lines that an answer cites in a function of `count` lines; those beyond it count as one more line that is
    wrong."""
    fix, cited = set(truth.lines), set(answer.lines)
    inside = {line for line in cited if line <= count}
    others = count - len(fix) + (inside != cited)
    wrong = len(inside - fix) + (inside != cited)
    return len(inside & fix) / len(fix) - (wrong / others if others else 0.0)


def _count(task: Task) -> int:
    """Lines of the function."""
    return sum(text.count("\n") for text in (task.source.files or {}).values())
