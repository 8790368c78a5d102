"""Benchmarks: their attempts, and the results of their episodes.

Invariant 2: a lost episode enters no rate, and a task lost on either side is left out of the comparison. A truncated
episode counts with its score. The JSON is `splits.<split>.<decoding>.before|after` and `difference`; fields may be
added but not renamed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crrl.evaluation.statistics import Paired, detectable_difference, mcnemar_exact, newcombe_paired, wilson
from crrl.rollout.api import Attempt, Episode
from crrl.task import Task

Decoding = Literal["sampled", "greedy"]
Phase = Literal["before", "after", "eval"]
TEMPERATURES: dict[Decoding, float] = {"sampled": 1.0, "greedy": 0.0}


def evaluation_attempts(
    tasks: Iterable[Task], split: str, decoding: Decoding, seed: int, phase: Phase
) -> list[Attempt]:
    """One attempt per task. Ids are stable, so a resumed run recognises its episodes. The seed does not depend on
    `phase`: before and after use the same noise, so their episodes are pairs."""
    return [
        Attempt(
            id=f"eval/{phase}/{split}/{decoding}/{task.id}",
            group=f"eval/{phase}/{split}/{decoding}/{task.id}",
            task=task,
            attempt=0,
            seed=_episode_seed(seed, split, decoding, task.id),
            temperature=TEMPERATURES[decoding],
        )
        for task in tasks
    ]


def _episode_seed(seed: int, *parts: str) -> int:
    text = "\0".join(["evaluation", str(seed), *parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def solved(episode: Episode) -> bool:
    """A lost episode is neither solved nor unsolved: asking is the caller's mistake."""
    if episode.outcome == "lost" or episode.verdict is None:
        raise ValueError(f"episode {episode.id} is {episode.outcome} and has no verdict to count")
    return episode.verdict.solved


@dataclass(frozen=True)
class SplitResult:
    """One split, one decoding, one policy.

    Args:
        solved, total: scored episodes, truncated ones included, lost ones not.
        ci95: Wilson's interval of `rate`.
        well_formed: share of `total` in which every tool call was valid, an edit applied, and the agent stopped by
            itself.
        lost, truncated: numbers of episodes.
        exploits: episodes with an attempted exploit.
        visible_only: episodes that pass every test the agent saw and fail one that it did not see.
        reward: mean.
        first_try: share of `total` solved before the agent saw any test output (Aider's pass_1; `rate` is its pass_2);
            None if it never sees any.
    """

    solved: int
    total: int
    rate: float
    ci95: tuple[float, float]
    well_formed: float = 0.0
    lost: int = 0
    truncated: int = 0
    exploits: int = 0
    exploits_by_name: dict[str, int] = field(default_factory=dict)
    visible_only: int = 0
    reward: float = 0.0
    first_try: float | None = None

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> SplitResult:
        everything = list(episodes)
        counted = [(e, e.verdict) for e in everything if e.outcome != "lost" and e.verdict is not None]
        total = len(counted)
        wins = sum(verdict.solved for _, verdict in counted)
        return cls(
            solved=wins,
            total=total,
            rate=wins / total if total else 0.0,
            ci95=wilson(wins, total),
            well_formed=sum(e.well_formed for e, _ in counted) / total if total else 0.0,
            lost=len(everything) - total,
            truncated=sum(e.outcome == "truncated" for e, _ in counted),
            exploits=sum(bool(verdict.exploits) for _, verdict in counted),
            exploits_by_name=dict(Counter(name for _, verdict in counted for name in set(verdict.exploits))),
            visible_only=sum(verdict.components.get("visible_only", 0.0) > 0 for _, verdict in counted),
            reward=sum(verdict.reward for _, verdict in counted) / total if total else 0.0,
            first_try=sum(verdict.solved and not e.earlier for e, verdict in counted) / total
            if any(e.earlier for e, _ in counted)
            else None,
        )


@dataclass(frozen=True)
class Difference:
    """After against before, over the tasks scored on both sides.

    Args:
        points: rate after − rate before, in percentage points.
        ci95: Newcombe's paired interval, in points.
        p: of the exact two-sided McNemar test.
        pairs, gained, fell: the counts behind them.
        excluded: tasks that were not scored on both sides.
        detectable: the difference, in points, that this many pairs show with 80% power at the observed share of
            changed tasks; None if that share is too small to show any.
    """

    points: float
    ci95: tuple[float, float]
    p: float
    pairs: int
    gained: int
    fell: int
    excluded: int = 0
    detectable: float | None = None

    @classmethod
    def of(cls, before: Iterable[Episode], after: Iterable[Episode]) -> Difference:
        """Pairs by (task, attempt). Raises ValueError if one occurs twice on a side."""
        old, new = _by_task(before), _by_task(after)
        pairs = [k for k in old if k in new and old[k].outcome != "lost" and new[k].outcome != "lost"]
        table = Paired.of([solved(old[k]) for k in pairs], [solved(new[k]) for k in pairs])
        low, high = newcombe_paired(table)
        changed = (table.gained + table.fell) / table.total if table.total else 0.0
        detectable = 100 * detectable_difference(table.total, changed)
        return cls(
            points=100 * table.difference,
            ci95=(100 * low, 100 * high),
            p=mcnemar_exact(table),
            pairs=table.total,
            gained=table.gained,
            fell=table.fell,
            excluded=len(old.keys() | new.keys()) - table.total,
            detectable=detectable if detectable <= 100 else None,
        )


def _by_task(episodes: Iterable[Episode]) -> dict[tuple[str, int], Episode]:
    found: dict[tuple[str, int], Episode] = {}
    for episode in episodes:
        key = (episode.task, episode.attempt)
        if key in found:
            raise ValueError(f"attempt {key[1]} at task {key[0]} occurs twice on one side of the comparison")
        found[key] = episode
    return found


Cells = Mapping[tuple[str, str], Sequence[Episode]]  # (split, decoding) -> episodes


def assemble(before: Cells, after: Cells) -> dict[str, dict[str, dict[str, Any]]]:
    """`{split: {decoding: {before, after, difference}}}` as plain JSON values. If `before` is empty, only `after`."""
    splits: dict[str, dict[str, dict[str, Any]]] = {}
    for (split, decoding), episodes in after.items():
        cell: dict[str, Any] = {"after": plain(SplitResult.of(episodes))}
        if (earlier := before.get((split, decoding))) is not None:
            cell = {"before": plain(SplitResult.of(earlier)), **cell}
            cell["difference"] = plain(Difference.of(earlier, episodes))
        splits.setdefault(split, {})[decoding] = cell
    return splits


def plain(value: SplitResult | Difference) -> dict[str, Any]:
    """JSON values, intervals as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}
