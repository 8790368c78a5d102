"""Results to compare: the scores of each task, by cell, and the conditions under which they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cell:
    """One benchmark under one decoding. `scores`: task -> 1.0 or 0.0 for each judged sample; `lost`: task -> samples
    that were not judged; `pairs`: of tasks that are one unit."""

    scores: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)

    def add(self, task: str, score: float | None) -> None:
        """`score` is None: lost."""
        if score is None:
            self.lost[task] = self.lost.get(task, 0) + 1
        else:
            self.scores.setdefault(task, []).append(score)


@dataclass(frozen=True)
class Results:
    """`cells`: by name ("" where there is one).

    Args:
        ruler: what has to agree for a difference to mean anything: the benchmark, its version.
        judges: task -> version of the judge (of each language there is another), where that is known: it has to agree,
            too.
        measured: agent, budgets, prompts, sampling: if they differ, the difference is not the policies' alone.
        tasks: task -> fingerprint of what is asked and how it is judged, where that is known.
        policy: what was evaluated, where that is known: checkpoint, rule, seed; `fingerprint`: its own, `first`: that
            of the policy which its training began with.
    """

    name: str
    cells: dict[str, Cell]
    ruler: Mapping[str, Any] = field(default_factory=dict)
    judges: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
