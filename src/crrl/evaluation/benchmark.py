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

import numpy as np

from crrl.evaluation import samples
from crrl.evaluation.statistics import Paired, detectable_difference, mcnemar_exact, newcombe_paired, wilson
from crrl.rewards.signals import COUNTS
from crrl.rollout.api import Attempt, Episode
from crrl.task import Task

Decoding = Literal["sampled", "greedy"]
Phase = Literal["before", "after", "eval", "validation"]
NO_PAIRS: samples.Pairs = {}


def evaluation_attempts(
    tasks: Iterable[Task],
    split: str,
    decoding: Decoding,
    seed: int,
    phase: str,
    *,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    noise: str = "",
) -> list[Attempt]:
    """`samples` attempts per task under `sampled`, so sampled; one under `greedy`. Ids are stable, so a resumed run
    recognises its episodes. The seed does not depend on `phase`: before and after use the same noise, so their
    episodes are pairs. `noise`: what it depends on in place of the split."""
    greedy = decoding == "greedy"
    return [
        Attempt(
            id=f"eval/{phase}/{split}/{decoding}/{task.id}" + (f"#{number}" if number else ""),
            group=f"eval/{phase}/{split}/{decoding}/{task.id}",
            task=task,
            attempt=number,
            seed=_episode_seed(seed, noise or split, decoding, task.id, *([str(number)] if number else [])),
            temperature=0.0 if greedy else temperature,
            top_p=1.0 if greedy else top_p,
            top_k=0 if greedy else top_k,
        )
        for task in tasks
        for number in range(1 if greedy else samples)
    ]


def _episode_seed(seed: int, *parts: str) -> int:
    text = "\0".join(["evaluation", str(seed), *parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class SplitResult:
    """One split, one decoding, one policy.

    Args:
        solved, total: scored episodes, truncated ones included, lost ones not.
        rate: mean over tasks (both versions of a function are one) of the share of their samples that solved them.
        ci95: Wilson's interval of `rate`; of several samples a task, the bootstrap's over tasks.
        bounds: the rate if every lost episode had been unsolved, and solved.
        well_formed: share of `total` in which every tool call was valid, an edit applied, and the agent stopped by
            itself.
        lost, truncated: numbers of episodes.
        exploits: episodes with an attempted exploit.
        visible_only: episodes that pass every test the agent saw and fail one that it did not see.
        reward: mean.
        first_try: share of `total` solved before the agent saw any test output (Aider's pass_1; `rate` is its pass_2);
            None if it never sees any.
        process: means of `signals.COUNTS` over the episodes whose agent made tool calls.
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
    bounds: tuple[float, float] = (0.0, 1.0)
    process: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, episodes: Iterable[Episode], pairs: samples.Pairs = NO_PAIRS) -> SplitResult:
        everything = list(episodes)
        counted = [(e, e.verdict) for e in everything if e.outcome != "lost" and e.verdict is not None]
        total = len(counted)
        wins = sum(verdict.solved for _, verdict in counted)
        scores, lost = scores_of(everything)
        rate, ci95 = rate_of(samples.joined(scores, pairs))
        return cls(
            solved=wins,
            total=total,
            rate=rate,
            ci95=ci95,
            bounds=bounds_of(scores, lost),
            process=_process([e.counts for e, _ in counted]),
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


def _process(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    known = [of for of in counts if COUNTS[0] in of]
    return {name: sum(of[name] for of in known) / len(known) for name in COUNTS} if known else {}


@dataclass(frozen=True)
class Difference:
    """After against before, over the tasks scored on both sides.

    Args:
        points: rate after − rate before, in percentage points.
        ci95: Newcombe's paired interval, in points; of several samples a task, the bootstrap's over tasks.
        p: of the exact two-sided McNemar test; of several samples, of the permutation test over tasks.
        pairs, gained, fell: tasks behind them (both versions of a function are one); `gained`, `fell`: whose mean rose,
            or fell.
        excluded: tasks that were not scored on both sides.
        detectable: the difference, in points, that this many pairs show with 80% power at the observed share of
            changed tasks; None if that share is too small to show any, or there are several samples.
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
    def of(cls, before: Iterable[Episode], after: Iterable[Episode], pairs: samples.Pairs = NO_PAIRS) -> Difference:
        """By task. Raises ValueError if an attempt occurs twice on a side."""
        (old, _), (new, _) = scores_of(before), scores_of(after)
        both = samples.differences(old, new)
        excluded = len(old.keys() | new.keys()) - len(both)
        old, new = (samples.joined(side, pairs, both) for side in (old, new))
        each = samples.differences(old, new)
        if any(len(side[task]) > 1 for side in (old, new) for task in each):
            mean = samples.MeanDifference.of(old, new)
            low, high = mean.ci95
            gained, fell = (sum(sign * d > 0 for d in each.values()) for sign in (1, -1))
            return cls(100 * mean.difference, (100 * low, 100 * high), mean.p, len(each), gained, fell, excluded)
        table = Paired.of([old[t][0] > 0.5 for t in each], [new[t][0] > 0.5 for t in each])
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
            excluded=excluded,
            detectable=detectable if detectable <= 100 else None,
        )


def scores_of(episodes: Iterable[Episode]) -> tuple[dict[str, list[float]], dict[str, int]]:
    """task -> 1.0 or 0.0 for each judged sample (a task that lost all has an empty list), and task -> lost samples.
    Raises ValueError if an attempt occurs twice."""
    scores: dict[str, list[float]] = {}
    lost: Counter[str] = Counter()
    seen: set[tuple[str, int]] = set()
    for episode in episodes:
        if (episode.task, episode.attempt) in seen:
            raise ValueError(f"attempt {episode.attempt} at task {episode.task} occurs twice on one side")
        seen.add((episode.task, episode.attempt))
        judged = scores.setdefault(episode.task, [])
        if episode.outcome == "lost" or episode.verdict is None:
            lost[episode.task] += 1
        else:
            judged.append(float(episode.verdict.solved))
    return scores, dict(lost)


def rate_of(scores: samples.Scores) -> tuple[float, tuple[float, float]]:
    """The mean over tasks of their means, and its 95% interval: of the bootstrap over tasks; Wilson's where the samples
    of each task agree, and where all means are equal (then it is too wide: means vary less than single samples).
    Tasks without a judged sample are left out."""
    judged = [s for s in scores.values() if s]
    means = np.array([sum(s) / len(s) for s in judged])
    if samples.agree(judged) or np.ptp(means) == 0:
        return float(means.mean()) if judged else 0.0, wilson(float(means.sum()), len(judged))
    low, high = samples.bootstrap(means)
    return float(means.mean()), (max(0.0, low), min(1.0, high))


def bounds_of(scores: samples.Scores, lost: Mapping[str, int]) -> tuple[float, float]:
    """The rate over all tasks if every lost sample had been unsolved, and if every one had been solved."""
    filled = [[[*s, *[value] * lost.get(task, 0)] for task, s in scores.items()] for value in (0.0, 1.0)]
    low, high = (sum(sum(s) / len(s) for s in side) / len(side) if side else 0.0 for side in filled)
    return low, high if scores else 1.0


Cells = Mapping[tuple[str, str], Sequence[Episode]]  # (split, decoding) -> episodes


def assemble(before: Cells, after: Cells, pairs: samples.Pairs = NO_PAIRS) -> dict[str, dict[str, dict[str, Any]]]:
    """`{split: {decoding: {before, after, difference}}}` as plain JSON values. If `before` is empty, only `after`."""
    splits: dict[str, dict[str, dict[str, Any]]] = {}
    for (split, decoding), episodes in after.items():
        cell: dict[str, Any] = {"after": plain(SplitResult.of(episodes, pairs))}
        if (earlier := before.get((split, decoding))) is not None:
            cell = {"before": plain(SplitResult.of(earlier, pairs)), **cell}
            cell["difference"] = plain(Difference.of(earlier, episodes, pairs))
        splits.setdefault(split, {})[decoding] = cell
    return splits


def plain(value: SplitResult | Difference) -> dict[str, Any]:
    """JSON values, intervals as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(value).items()}
