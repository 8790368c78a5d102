"""What of an evaluation may have been seen in training: tasks, commits, patches, and dates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from crrl.task import Task
from crrl.tasks.leakage import gap_days, twins


def seen(training: Sequence[Task] | None, evaluation: Sequence[Task], source: str) -> dict[str, Any]:
    """JSON values. `training` is None: what the policy was trained on is not known, and so is said.

    `twins`: evaluation task -> [training task, how]. `gap_days`: from the newest training task to the oldest evaluation
    task, negative where they overlap. `said`: one line."""
    days = sorted(task.created_at[:10] for task in evaluation if task.created_at)
    told: dict[str, Any] = {"source": source, "oldest": days[0] if days else None, "newest": days[-1] if days else None}
    if training is None:
        return _with_words(told | {"known": False})
    found = twins(training, evaluation)
    return _with_words(
        told
        | {
            "known": True,
            "trained_on": len(training),
            "gap_days": gap_days(training, evaluation),
            "by": dict(Counter(twin.how for twin in found)),
            "twins": {twin.twin: [twin.task, twin.how] for twin in found},
        }
    )


def _with_words(told: dict[str, Any]) -> dict[str, Any]:
    return told | {"said": _said(told)}


def _said(told: dict[str, Any]) -> str:
    """One line."""
    if not told["known"]:
        dates = f" The tasks date from {told['oldest']} to {told['newest']}." if told["oldest"] else ""
        return f"Leakage: not known; {told['source']}.{dates}"
    gap = told["gap_days"]
    apart = f"{gap} days lie between them" if gap is not None and gap >= 0 else f"they overlap by {-(gap or 0)} days"
    dated = "the dates of both are not known" if gap is None else apart
    by = ", ".join(f"{number} by {how}" for how, number in told["by"].items())
    which = f"{len(told['twins'])} tasks were trained on ({by})" if by else "none of the tasks was trained on"
    return f"Leakage: {which}; the policy saw {told['trained_on']} tasks ({told['source']}); {dated}."
