"""The judge of classification: reads the answer out of a patch, and compares its label with the true one.

Only the file `ANSWER` counts (`crrl.label`); whatever else the patch does is left aside, and nothing of it is ever run.
Its one test, `label`, is `passed` or `failed`, `skipped` where the answer is that one cannot tell, and `missing` where
there is no answer that can be read.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import lru_cache

from crrl import label
from crrl.label import ANSWER, Answer, Unreadable
from crrl.rewards import patching
from crrl.rewards.api import TestResults, TestStatus
from crrl.rewards.patching import PatchError
from crrl.task import Task
from crrl.tasks.diffs import between

TEST = "label"
LARGEST = 1 << 20  # characters of a patch


def judge(task: Task, patch: str) -> TestResults:
    """The verdict on an answer. It never fails: what cannot be read is a verdict, too."""
    truth = task.test.label
    assert truth is not None, "TaskJudge asks for tasks with a label"
    try:
        answer = answer_of(patch)
    except PatchError as error:
        return TestResults({TEST: "missing"}, applied=False, reason="patch_refused", output=str(error))
    except Unreadable as error:
        return TestResults({TEST: "missing"}, output=f"No answer: {error}.")
    status: TestStatus = "skipped" if answer.label == "cannot tell" else "failed"
    if answer.label == truth.said:
        status = "passed"
    return TestResults({TEST: status}, output=label.write(answer))


def answer_of(patch: str) -> Answer:
    """Raises Unreadable: there is no answer in it; PatchError: it is no patch."""
    found = _found(patch)
    if isinstance(found, ValueError):
        raise found
    return found


def answer_in(patch: str) -> Answer | None:
    """None where there is none."""
    found = _found(patch)
    return None if isinstance(found, ValueError) else found


@lru_cache(maxsize=256)  # each reward of an episode asks
def _found(patch: str) -> Answer | PatchError | Unreadable:
    try:
        if len(patch) > LARGEST:
            raise Unreadable(f"the patch is longer than {LARGEST} characters")
        file = patching.apply(patch, lambda path: None, lambda path: path != ANSWER).get(ANSWER)
        if file is None or file.link is not None:
            raise Unreadable(f"the patch makes no file {ANSWER}")
        return label.read(file.data.decode("utf-8", "replace"))
    except (PatchError, Unreadable) as error:
        return error


def patch_of(answer: Answer) -> str:
    """The patch that answers so."""
    return between(ANSWER, None, label.write(answer))


def version() -> str:
    """Verdicts compare only under the same one."""
    return hashlib.sha256(inspect.getsource(label).encode()).hexdigest()[:4]
