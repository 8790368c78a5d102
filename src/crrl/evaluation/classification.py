"""Metrics of classification, as the field defines them, for one split under one decoding.

Pairs: PrimeVul's P-C (both versions right), P-V (both called vulnerable), P-B (both called not vulnerable), P-R (both
wrong) and its VD-S, the share of vulnerable functions missed at a false positive rate of at most 0.5% (Ding et al.
2024, arXiv:2403.18624; lower is better). F1 of each class and their mean, balanced accuracy, Brier's score, and the
expected calibration error over ten bins (Guo et al. 2017, arXiv:1706.04599).

An answer that cannot be read, or that one cannot tell, is of neither class: it counts against recall, in no precision,
and apart. Lost episodes are in no number (invariant 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from crrl.evaluation.benchmark import Cells, rate_of
from crrl.evaluation.metrics import KS
from crrl.label import Answer, Label
from crrl.rewards.cited_lines import informedness
from crrl.rewards.label_judge import answer_in
from crrl.rollout.api import Episode
from crrl.task import Task

FALSE_POSITIVES = 0.005  # VD-S
BINS = 10


@dataclass(frozen=True)
class Classified:
    """One judged sample. `answer` is None where none could be read; `lines`: of the function; `tokens`: sampled."""

    task: str
    attempt: int
    truth: Label
    answer: Answer | None
    lines: int
    tokens: int

    @classmethod
    def of(cls, episode: Episode, task: Task) -> Classified:
        assert task.test.label is not None
        lines = sum(text.count("\n") for text in (task.source.files or {}).values())
        tokens = sum(len(sample.ids) for sample in episode.samples)
        return cls(task.id, episode.attempt, task.test.label, answer_in(episode.patch), lines, tokens)

    @property
    def said(self) -> bool | None:
        """Called vulnerable; None: neither."""
        if self.answer is None or self.answer.label == "cannot tell":
            return None
        return self.answer.label == "vulnerable"

    @property
    def right(self) -> bool:
        return self.said is self.truth.vulnerable

    @property
    def score(self) -> float:
        """How probable it is that the function is vulnerable; what cannot be read raises no alarm."""
        return 0.0 if self.answer is None else self.answer.vulnerable


def classified(tasks: Mapping[str, Task], cells: Cells) -> dict[str, dict[str, dict[str, Any]]]:
    """split -> decoding -> `measure`, of the splits whose tasks are functions to classify."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (split, decoding), episodes in cells.items():
        judged = [
            Classified.of(episode, tasks[episode.task])
            for episode in episodes
            if episode.outcome != "lost" and episode.verdict is not None and tasks[episode.task].test.label is not None
        ]
        if judged:
            found.setdefault(split, {})[decoding] = measure(judged)
    return found


def measure(judged: Sequence[Classified]) -> dict[str, Any]:
    """JSON values; None where there is nothing to measure. `docs/metrics.md` explains each."""
    f1 = {name: _f1(judged, vulnerable) for name, vulnerable in (("vulnerable", True), ("not_vulnerable", False))}
    recalls = [recall for vulnerable in (True, False) if (recall := _recall(judged, vulnerable)) is not None]
    return {
        "samples": len(judged),
        "vulnerable": sum(one.truth.vulnerable for one in judged),
        "accuracy": _share(judged, lambda one: one.right),
        "accuracy_of_answers": _share([one for one in judged if one.said is not None], lambda one: one.right),
        "cannot_tell": _share(judged, lambda one: one.answer is not None and one.said is None),
        "unreadable": _share(judged, lambda one: one.answer is None),
        "balanced_accuracy": fmean(recalls) if len(recalls) == 2 else None,
        "f1": f1,
        "f1_macro": fmean(f1.values()),
        "vd_s": vd_s([one.truth.vulnerable for one in judged], [one.score for one in judged]),
        "pairs": pairs(judged),
        "calibration": calibration(judged),
        "cwe": _cwe(judged),
        "lines": _lines(judged),
        "majority": majority(judged),
    }


def pairs(judged: Iterable[Classified]) -> dict[str, Any] | None:
    """Of the pairs both of whose members were judged, sample by sample; `undecided`: one of them is of neither class.
    None: there is no pair."""
    members: dict[tuple[str, int], list[Classified]] = {}
    for one in judged:
        if one.truth.pair:
            members.setdefault((one.truth.pair, one.attempt), []).append(one)
    both = [sorted(of, key=lambda one: not one.truth.vulnerable) for of in members.values() if len(of) == 2]
    if not both:
        return None
    names = {(True, False): "p_c", (True, True): "p_v", (False, False): "p_b", (False, True): "p_r"}
    counts = dict.fromkeys([*names.values(), "undecided"], 0)
    for old, new in both:
        said = (old.said, new.said)
        counts["undecided" if None in said else names[said]] += 1  # type: ignore[index]
    shares: dict[str, Any] = {name: count / len(both) for name, count in counts.items()}
    right: dict[str, list[float]] = {}
    for old, new in both:
        right.setdefault(old.truth.pair, []).append(float((old.said, new.said) == (True, False)))
    return {"pairs": len(both), **shares, "p_c_ci95": list(rate_of(right)[1])}


def vd_s(vulnerable: Sequence[bool], scores: Sequence[float], most: float = FALSE_POSITIVES) -> float | None:
    """The least share of vulnerable functions below a threshold of the score, over the thresholds at which at most
    `most` of the others are not below it. None where a class is missing."""
    positives, negatives = sum(vulnerable), len(vulnerable) - sum(vulnerable)
    if not positives or not negatives:
        return None
    best = 0
    for threshold in sorted(set(scores), reverse=True):
        hits = [truth for truth, score in zip(vulnerable, scores, strict=True) if score >= threshold]
        if (len(hits) - sum(hits)) / negatives > most:
            break
        best = sum(hits)
    return 1 - best / positives


def calibration(judged: Iterable[Classified]) -> dict[str, Any] | None:
    """`brier`: mean of (probability of vulnerable − truth)²; `ece`: of the probability that the label is right. Over
    the answers with a label; `stated`: the share of them that state a probability (the others are taken as certain)."""
    answered = [one for one in judged if one.said is not None]
    if not answered:
        return None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for one in answered:
        sure = max(one.score, 1 - one.score)
        bins.setdefault(min(int(sure * BINS), BINS - 1), []).append((sure, one.right))
    gaps = {
        number: (fmean(sure for sure, _ in of), fmean(right for _, right in of), len(of)) for number, of in bins.items()
    }
    return {
        "answers": len(answered),
        "brier": fmean((one.score - one.truth.vulnerable) ** 2 for one in answered),
        "ece": sum(abs(sure - right) * count for sure, right, count in gaps.values()) / len(answered),
        "stated": fmean(one.answer is not None and one.answer.probability is not None for one in answered),
        "bins": [[sure, right, count] for _, (sure, right, count) in sorted(gaps.items())],
    }


def majority(judged: Iterable[Classified]) -> list[dict[str, float]]:
    """Test-time compute: for each k, the accuracy of the majority of k samples, expected over all choices of k of a
    task's samples, and the tokens that k samples take. Answers of neither class do not vote; a tie is right half the
    time. Over the tasks with k samples."""
    by_task: dict[str, list[Classified]] = {}
    for one in judged:
        by_task.setdefault(one.task, []).append(one)
    most = max((len(of) for of in by_task.values()), default=0)
    found = []
    for k in [*(k for k in KS if k < most), most] if most > 1 else []:
        enough = [of for of in by_task.values() if len(of) >= k]
        values = [_majority(sum(s.right for s in of), sum(s.said is None for s in of), len(of), k) for of in enough]
        tokens = k * fmean(fmean(sample.tokens for sample in of) for of in enough)
        found.append({"k": k, "accuracy": fmean(values), "tokens": tokens, "tasks": len(enough)})
    return found


def _majority(right: int, silent: int, samples: int, k: int) -> float:
    """The chance that most of `k` of the samples that vote are right."""
    wrong, total = samples - right - silent, 0.0
    for i in range(min(right, k) + 1):
        for j in range(min(wrong, k - i) + 1):
            ways = math.comb(right, i) * math.comb(wrong, j) * math.comb(silent, k - i - j)
            total += ways * (1.0 if i > j else 0.5 if i == j and i else 0.0)
    return total / math.comb(samples, k)


def _share(judged: Sequence[Classified], of: Any) -> float | None:
    return fmean(float(of(one)) for one in judged) if judged else None


def _recall(judged: Iterable[Classified], vulnerable: bool) -> float | None:
    return _share([one for one in judged if one.truth.vulnerable is vulnerable], lambda one: one.right)


def _f1(judged: Sequence[Classified], vulnerable: bool) -> float:
    """0 where the class neither is true nor was said."""
    true = sum(one.truth.vulnerable is vulnerable for one in judged)
    said = sum(one.said is vulnerable for one in judged)
    both = sum(one.truth.vulnerable is vulnerable and one.right for one in judged)
    return 2 * both / (true + said) if true + said else 0.0


def _cwe(judged: Iterable[Classified]) -> dict[str, float] | None:
    """Of the vulnerable functions that were found, and whose weakness is known: the share in which it alone is
    named."""
    hits = [one for one in judged if one.truth.vulnerable and one.right and one.truth.cwe]
    if not hits:
        return None
    return {"functions": len(hits), "right": fmean(_named(one) for one in hits)}


def _named(one: Classified) -> bool:
    return one.answer is not None and bool(one.answer.cwe) and set(one.answer.cwe) <= set(one.truth.cwe)


def _lines(judged: Iterable[Classified]) -> dict[str, float] | None:
    """Of the vulnerable functions that were found, and whose fix is known: cited lines against its lines."""
    hits = [one for one in judged if one.truth.vulnerable and one.right and one.truth.lines]
    if not hits:
        return None
    cited = [(set(one.answer.lines) if one.answer else set(), set(one.truth.lines)) for one in hits]
    return {
        "functions": len(hits),
        "cited": fmean(bool(mine) for mine, _ in cited),
        "precision": fmean(len(mine & fix) / len(mine) if mine else 0.0 for mine, fix in cited),
        "recall": fmean(len(mine & fix) / len(fix) for mine, fix in cited),
        "informedness": fmean(informedness(one.answer, one.truth, one.lines) for one in hits if one.answer),
    }
