"""What a task asks for: to repair a bug, to implement a function that lacks its body, or to classify a function."""

from __future__ import annotations

from typing import Literal

from crrl.task import Task

Asked = Literal["repair", "implement", "classify"]  # as `corpus.ask`
MASKED = "masked"
"""A generated task's `mutation`, where the body is gone."""


def asked_of(task: Task) -> Asked:
    if task.test.label is not None:
        return "classify"
    # `crrl tasks spec` writes `objective` down.
    implement = task.provenance.get("objective") == "implement" or task.provenance.get("mutation") == MASKED
    return "implement" if implement else "repair"
