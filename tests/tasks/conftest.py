"""Tasks are judged by the judge that training uses."""

from __future__ import annotations

import pytest

from crrl.rewards.task_judge import TaskJudge


@pytest.fixture
def judge(task_judge: TaskJudge) -> TaskJudge:
    return task_judge
