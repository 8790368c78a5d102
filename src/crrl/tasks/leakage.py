"""Leakage: training tasks that are evaluation tasks under another name, found by id, by commit, and by patch.

- id: equal apart from a corpus's additions (`instance_`, version suffixes, case);
- commit: the same repository at the same commit (mirrors that carry the commit in their name count as it);
- function: both ask about the same function, or about versions of one (white space apart), whatever the commit;
- patch: the share of equal changed lines (Jaccard index over file name, sign and line) is at least `SIMILAR`.

It also compares dates: how long before the oldest evaluation task the newest training task was made.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from crrl.task import Task
from crrl.tasks.diffs import changes

SIMILAR = 0.6
LEAST_CHARS = 4  # shorter lines (brackets, `else`) are in every patch
Feature = tuple[str, str]


@dataclass(frozen=True)
class Twin:
    """`task` (of training) is `twin` (of evaluation); `similarity` is 1.0 but for `how == "patch"`."""

    task: str
    twin: str
    how: Literal["id", "commit", "function", "patch"]
    similarity: float = 1.0


def twins(training: Sequence[Task], evaluation: Sequence[Task]) -> list[Twin]:
    """The first reason for each training task that has one."""
    by_id = {plain_id(task.id): task.id for task in evaluation}
    by_commit = {commit: task.id for task in evaluation if (commit := commit_of(task))}
    by_function = {of: task.id for task in evaluation for of in functions_of(task)}
    similar = _Similar(evaluation)
    found = []
    for task in training:
        if twin := by_id.get(plain_id(task.id)):
            found.append(Twin(task.id, twin, "id"))
        elif twin := by_commit.get(commit_of(task) or ("", "")):
            found.append(Twin(task.id, twin, "commit"))
        elif twin := next((by_function[of] for of in functions_of(task) if of in by_function), None):
            found.append(Twin(task.id, twin, "function"))
        elif (nearest := similar.nearest(task))[1] >= SIMILAR:
            found.append(Twin(task.id, nearest[0], "patch", round(nearest[1], 3)))
    return found


def plain_id(id: str) -> str:
    return re.sub(r"-v(nan|[0-9a-f]{8,})$", "", id.lower().removeprefix("instance_"))


def commit_of(task: Task) -> tuple[str, str] | None:
    """(owner/name, the first eight digits of the commit), None where the source is no repository, or bugs are put into
    it (any number of them into one commit)."""
    if task.source.repo is None or not task.source.base_commit or task.source.patches:
        return None
    repo = re.sub(r"(\.git)?/*$", "", task.source.repo.lower())
    owner, name = (["", "", *repo.split("/")])[-2:]
    if mirror := re.fullmatch(r"(.+?)__(.+)\.([0-9a-f]{8})", name):
        return f"{mirror[1]}/{mirror[2]}", mirror[3]
    return f"{owner}/{name}", task.source.base_commit[:8].lower()


def functions_of(task: Task) -> list[str]:
    """Of a task that asks about a function: its text without white space, and the name of its pair."""
    if task.test.label is None:
        return []
    code = " ".join(" ".join((task.source.files or {}).values()).split())
    return [code, f"pair {task.test.label.pair}"] if task.test.label.pair else [code]


class _Similar:
    """Patches by their changed lines; only those that share a line are compared."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.ids = [task.id for task in tasks]
        self.sizes = []
        self.having: dict[Feature, list[int]] = defaultdict(list)
        for number, task in enumerate(tasks):
            features = features_of(task.solution)
            self.sizes.append(len(features))
            for feature in features:
                self.having[feature].append(number)

    def nearest(self, task: Task) -> tuple[str, float]:
        features = features_of(task.solution)
        shared = Counter(number for feature in features for number in self.having.get(feature, ()))
        scores = ((n / (len(features) + self.sizes[number] - n), number) for number, n in shared.items())
        score, number = max(scores, default=(0.0, -1))
        return (self.ids[number], score) if number >= 0 else ("", 0.0)


def features_of(patch: str | None) -> set[Feature]:
    """(file name, sign and line without its spacing) of each changed line that says something."""
    return {
        (posixpath.basename(path), line[0] + " ".join(line[1:].split()))
        for path, lines in changes(patch or "")
        for line in lines
        if len(line[1:].strip()) >= LEAST_CHARS
    }


def gap_days(training: Iterable[Task], evaluation: Iterable[Task]) -> int | None:
    """Days from the newest training task to the oldest evaluation task (negative: they overlap); None without dates."""
    newest = max((day for task in training if (day := _day(task))), default=None)
    oldest = min((day for task in evaluation if (day := _day(task))), default=None)
    return (oldest - newest).days if newest and oldest else None


def _day(task: Task) -> date | None:
    try:
        return date.fromisoformat(task.created_at[:10])
    except ValueError:
        return None
