"""Rewards against tests: does a higher reward mean that the tests pass? `crrl calibrate`.

Two rewards that choose equally well among n attempts can differ as rewards of reinforcement learning: how well they
separate (AUC) and whether their values are probabilities (ECE) decide (SWE-RM, arXiv:2512.21919). From a reward to a
probability lead two maps: the value itself, cut to [0, 1]; and isotonic regression, fitted on other tasks. The formulas
are in `reranking.py`, the intervals in `cluster_bootstrap.py`: clusters are tasks, or repositories.

A number that would rest on fewer than `LEAST` solved or unsolved attempts is not given; the reason is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from crrl.evaluation import cluster_bootstrap, reranking
from crrl.evaluation.attempts import KEYS, Attempt, Attempts
from crrl.evaluation.cluster_bootstrap import Statistic
from crrl.evaluation.statistics import wilson

LEAST = 10
CLUSTERS = ("task", "repository")
MAPS = {
    "value": "the reward itself, cut to 0..1",
    "isotonic": "isotonic regression, fitted on the other four fifths of the tasks",
}


def calibrate(attempts: Attempts, ks: Sequence[int] = (), cluster: str = "task") -> dict[str, Any]:
    """JSON values; docs/evaluation.md explains each. `ks`: for best@k; empty: 2, 4, 8... as far as groups go."""
    judged = attempts.judged
    sizes = Counter(attempt.group for attempt in judged)
    ks = list(ks) or _ks(list(sizes.values()))
    names = sorted({name for attempt in judged for name in attempt.scores})
    return {
        "attempts": {
            "judged": len(judged),
            "solved": sum(a.solved for a in judged),
            "truncated": sum(a.truncated for a in judged),
            "lost": attempts.lost,
            "tasks": len({a.task for a in judged}),
            "groups": len(sizes),
        },
        "k": ks,
        "cluster": cluster,
        "maps": MAPS,
        "notes": attempts.notes,
        "rewards": {name: of_reward(judged, name, ks, cluster) for name in names},
        "by": {
            key: {part: {name: of_reward(of, name, ks, cluster) for name in names} for part, of in parts.items()}
            for key in KEYS
            if len(parts := _parts(judged, key)) > 1
        },
    }


def _ks(sizes: Sequence[int]) -> list[int]:
    """Powers of two, and the largest size, that `LEAST` groups reach."""
    most = max((k for k in set(sizes) if sum(size >= k for size in sizes) >= LEAST), default=1)
    return sorted({*(2**i for i in range(1, 9) if 2**i <= most), most} - {1})


def _parts(judged: Iterable[Attempt], key: str) -> dict[str, list[Attempt]]:
    parts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in judged:
        parts[attempt.about.get(key, "not known")].append(attempt)
    return dict(sorted(parts.items()))


def of_reward(judged: Sequence[Attempt], name: str, ks: Sequence[int], cluster: str = "task") -> dict[str, Any]:
    """One reward over some attempts. `says`: why it has no numbers, or less than all."""
    having = [a for a in judged if name in a.scores]
    solved = sum(a.solved for a in having)
    values = [a.scores[name] for a in having]
    found: dict[str, Any] = {
        "attempts": len(having),
        "solved": solved,
        "not_applicable": len(judged) - len(having),
        "range": [min(values), max(values)] if values else None,
        "says": _says(having, values, solved),
    }
    if found["says"]:
        return found
    reward, outcome = np.array(values, float), np.array([a.solved for a in having], float)
    number = _numbered([a.about.get("repository", a.task) if cluster == "repository" else a.task for a in having])
    clusters = int(number.max()) + 1
    found["clusters"] = clusters
    found["auc"] = _told(reranking.auc(reward, outcome, number), clusters, len(having))
    found["ece"] = _ece(reward, outcome, number, clusters)
    found["bins"] = _bins(np.clip(reward, 0, 1), outcome)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, attempt in enumerate(having):
        groups[attempt.group].append(i)
    in_groups = [(values_of, number[of[0]]) for of in groups.values() if (values_of := _at(having, name, of))]
    found["within_groups"] = _within(in_groups, clusters)
    found["best_at"] = {str(k): best for k in ks if (best := _best(in_groups, k, clusters)) is not None}
    return found


def _says(having: Sequence[Attempt], values: Sequence[float], solved: int) -> str:
    if not having:
        return "applies to no attempt"
    if len(set(values)) == 1:
        return f"constant: {values[0]:g} at all {len(values)} attempts"
    for count, what in ((solved, "solved"), (len(having) - solved, "unsolved")):
        if count < LEAST:
            return f"too few: {count} {what} of {len(having)} attempts"
    return ""


Group = tuple[list[float], list[bool]]  # the rewards of its attempts, and which are solved


def _at(having: Sequence[Attempt], name: str, of: Sequence[int]) -> Group:
    return [having[i].scores[name] for i in of], [having[i].solved for i in of]


def _told(statistic: Statistic, clusters: int, size: int = 0) -> dict[str, Any]:
    interval = cluster_bootstrap.bca(statistic, clusters, size)
    return {"value": cluster_bootstrap.value(statistic, clusters), "ci95": list(interval) if interval else None}


def _ece(reward: np.ndarray, solved: np.ndarray, number: np.ndarray, clusters: int) -> dict[str, Any]:
    """For each of `MAPS`; the interval of the second takes the fitted map as it is."""
    found = {}
    for name, p in (("value", np.clip(reward, 0, 1)), ("isotonic", reranking.isotonic(reward, solved, number))):
        told = _told(reranking.ece(p, solved, number), clusters, len(reward))
        found[name] = {**told, "by_chance": reranking.ece_by_chance(p)}
    found["value"]["cut"] = int(((reward < 0) | (reward > 1)).sum())
    return found


def _bins(probability: np.ndarray, solved: np.ndarray) -> list[dict[str, Any]]:
    """The reliability diagram; Wilson's intervals, which take attempts as independent."""
    at = reranking.bin_of(probability)
    return [
        {
            "probability": float(probability[at == b].mean()),
            "rate": float(solved[at == b].mean()),
            "attempts": int((at == b).sum()),
            "ci95": list(wilson(int(solved[at == b].sum()), int((at == b).sum()))),
        }
        for b in range(reranking.BINS)
        if (at == b).any()
    ]


def _within(groups: Sequence[tuple[Group, int]], clusters: int) -> dict[str, Any]:
    mixed = [(found, number) for of, number in groups if (found := reranking.auc_of_group(*of)) is not None]
    if not mixed:
        return {"value": None, "ci95": None, "groups": 0}
    statistic = reranking.mean_of_groups(*_columns(mixed))
    return {**_told(statistic, clusters, len(mixed)), "groups": len(mixed)}


def _best(groups: Sequence[tuple[Group, int]], k: int, clusters: int) -> dict[str, Any] | None:
    """None: no group has k attempts. `over_random`: best − random."""
    found = [(reranking.best_at_k(*of, k), number) for of, number in groups if len(of[0]) >= k]
    if not found:
        return None
    told: dict[str, Any] = {"groups": len(found), "smaller_groups": len(groups) - len(found)}
    for name in ("best", "oracle", "random"):
        told[name] = _told(reranking.mean_of_groups(*_columns([(getattr(b, name), n) for b, n in found])), clusters)
    over = [(b.best - b.random, number) for b, number in found]
    return {**told, "over_random": _told(reranking.mean_of_groups(*_columns(over)), clusters)}


def _columns(pairs: Sequence[tuple[float, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([value for value, _ in pairs]), np.array([number for _, number in pairs])


def _numbered(names: Sequence[str]) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


# As text --------------------------------------------------------------------------------------------------------------

COLUMNS = ("reward", "n", "AUC", "within groups", "ECE", "isotonic", "best", "random", "oracle")


def table(rewards: Mapping[str, Mapping[str, Any]], ks: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, best AUC first; of best@k the largest k that half of the groups reach. A row that has no
    numbers has what it says."""
    k = main_k(rewards, ks)
    columns = [f"{name}@{k}" if name in ("best", "oracle") and k else name for name in COLUMNS]
    ranked = sorted(rewards.items(), key=lambda item: -(item[1].get("auc") or {"value": -1})["value"])
    return columns, [[name, str(of["attempts"]), *_numbers(of, k)] for name, of in ranked]


def tables(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(title, heading, rows): of all attempts, then of each part that has numbers."""
    yield "All attempts", *table(report["rewards"], report["k"])
    for key, parts in report["by"].items():
        for part, rewards in parts.items():
            if not _has_none(rewards):
                yield f"{key}: {part}", *table(rewards, report["k"])


def too_few(report: Mapping[str, Any]) -> list[str]:
    """Lines: the parts that have no numbers."""
    lines = []
    for key, parts in report["by"].items():
        if few := [f"{part} ({_counted(of)})" for part, of in parts.items() if _has_none(of)]:
            lines.append(f"{key}, with too few attempts or constant rewards: {', '.join(few)}")
    return lines


def _has_none(rewards: Mapping[str, Mapping[str, Any]]) -> bool:
    return all(of["says"] for of in rewards.values())


def _counted(rewards: Mapping[str, Mapping[str, Any]]) -> str:
    of = max(rewards.values(), key=lambda reward: int(reward["attempts"]))
    return f"{of['solved']} of {of['attempts']} solved"


def main_k(rewards: Mapping[str, Mapping[str, Any]], ks: Sequence[int]) -> int:
    """0: hardly a group has several attempts."""
    for k in sorted(ks, reverse=True):
        for of in rewards.values():
            best = of.get("best_at", {}).get(str(k))
            if best and best["groups"] >= best["smaller_groups"]:
                return k
    return 0


def _numbers(of: Mapping[str, Any], k: int) -> list[str]:
    if of["says"]:
        return [of["says"]]
    best = of["best_at"].get(str(k))
    cells = [number(of["auc"]), number(of["within_groups"])]
    cells += [number(of["ece"][name], interval=False) for name in MAPS]
    return cells + [
        number(best[name], interval=name == "best") if best else "–" for name in ("best", "random", "oracle")
    ]


def number(told: Mapping[str, Any], *, interval: bool = True) -> str:
    if told["value"] is None:
        return "–"
    ends = " [{:.2f}, {:.2f}]".format(*told["ci95"]) if told["ci95"] and interval else ""
    return f"{told['value']:.2f}{ends}"


def headline(report: Mapping[str, Any]) -> list[str]:
    """Lines: over what, and what was left out."""
    of = report["attempts"]
    lines = [
        f"{of['judged']} judged attempts at {of['tasks']} tasks, {of['solved']} solved; {of['truncated']} of them were "
        f"truncated, and judged on what they left; {of['lost']} more were lost, and enter nothing."
    ]
    return lines + list(report["notes"])


def legend(report: Mapping[str, Any]) -> str:
    return (
        "AUC: chance that a solved attempt has the higher reward; within groups: among attempts at one task. "
        "ECE: the reward itself, cut to 0..1, taken as the probability that the tests pass; isotonic: after isotonic "
        f"regression fitted on other tasks. 95% intervals: BCa bootstrap over {_plural(report['cluster'])}."
    )


def _plural(cluster: str) -> str:
    return "repositories" if cluster == "repository" else "tasks"


def markdown(report: Mapping[str, Any]) -> str:
    lines = headline(report)
    for title, columns, rows in tables(report):
        padded = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
        lines += ["", f"**{title}**", ""]
        lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *padded)]
    return "\n".join([*lines, *(f"\n{line}" for line in too_few(report)), "", legend(report)])
