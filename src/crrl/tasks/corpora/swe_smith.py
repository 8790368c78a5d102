"""SWE-smith (Yang et al. 2025, arXiv:2504.21798): bugs put into working repositories, some 50,000.

Traps: `patch` makes the bug, the repair is its reverse. `base_commit` is the tip of branch `<instance_id>` in the
mirror, where the bug is in already; the image holds the repository before it.
"""

from __future__ import annotations

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import of_rows
from crrl.tasks.corpora.rows import Row, diff, failing, names, text
from crrl.tasks.corpora.swe_rows import TESTBED, TIMEOUT_S, commanded, language_of
from crrl.tasks.diffs import reverse, touched


def convert(row: Row, split: str) -> Task:
    bug, repo = diff(row, "patch"), text(row, "repo")
    image = f"jyangballin/{text(row, 'image_name').replace('__', '_1776_')}:latest"
    plan = TestPlan(
        command=Command([]),
        parser="",
        fail_to_pass=failing(row, "FAIL_TO_PASS"),
        pass_to_pass=names(row, "PASS_TO_PASS"),
        timeout_s=TIMEOUT_S,
    )
    if not (issue := text(row, "problem_statement", "")).strip():
        raise ValueError("problem_statement: empty: the corpus has issue texts for a part of its bugs only")
    return Task(
        id=text(row, "instance_id"),
        corpus="swe-smith",
        split=split,
        language=language_of(touched(bug)),
        family=repo,
        source=Source(
            repo=f"https://github.com/{repo}",
            base_commit=text(row, "base_commit"),
            image=image,
            workdir=TESTBED,
            patches=[bug],
        ),
        issue=issue,
        test=commanded(plan, repo, ""),
        solution=reverse(bug),
        created_at=str(row.get("created_at") or ""),
    )


CORPUS = of_rows("swe-smith", "SWE-bench/SWE-smith", ("train",), convert)
