"""The judge of code that no test covers: its patch is compared with the project's own, and nothing runs.

Its one test, `like the original`, passes where the patch changes the same tokens of code as the known fix (comments and
layout aside), so that "solved" means: written as its authors wrote it. How near it came is what the rewards
`diff_similarity` and `style` say; `tests` alone would be a reward that is hardly ever paid.
"""

from __future__ import annotations

from crrl.rewards import patching
from crrl.rewards.api import TestResults
from crrl.rewards.patching import PatchError
from crrl.rewards.similarity import LONGEST, changed_tokens
from crrl.task import Command, Task, TestPlan
from crrl.tasks.files import LIKENESS

TEST = "like the original"


def plan() -> TestPlan:
    return TestPlan(Command(["true"]), LIKENESS, [TEST], [])


def judge(task: Task, patch: str) -> TestResults:
    """The verdict on a patch. It never fails: what cannot be read is a verdict, too."""
    assert task.solution is not None, "a task with this plan has its solution (tasks/files.py)"
    if len(patch) > LONGEST:
        said = f"the patch is longer than {LONGEST} characters"
        return TestResults({TEST: "missing"}, applied=False, reason="patch_refused", output=said)
    try:
        patching.parse(patch)
    except PatchError as error:
        return TestResults({TEST: "missing"}, applied=False, reason="patch_refused", output=str(error))
    near = changed_tokens(patch, task.solution)
    return TestResults({TEST: "passed" if near == 1.0 else "failed"}, output=f"{near:.2f} of the original's tokens.")
