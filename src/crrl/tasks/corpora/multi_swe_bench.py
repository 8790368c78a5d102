"""Multi-SWE-bench (Zan et al. 2025, arXiv:2504.02605): pull requests in seven languages. From its documentation.

A row is a pull request with `fix_patch`, `test_patch` and the tests by outcome (`f2p_tests`: failed, then passed;
`s2p`, `n2p`: skipped or absent, then passed; `p2p`). Its own harness parses their names out of each repository's log,
so grading needs its package, `multi-swe-bench`.
"""

from __future__ import annotations

from typing import Any

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import of_rows
from crrl.tasks.corpora.rows import Row, diff, mapping, text
from crrl.tasks.corpora.swe_rows import language_of
from crrl.tasks.diffs import touched


def convert(row: Row, split: str) -> Task:
    org, name, number = text(row, "org"), text(row, "repo"), row.get("number")
    if not isinstance(number, int):
        raise ValueError("number: a whole number is needed")
    solution, test_patch = diff(row, "fix_patch"), diff(row, "test_patch", "")
    fixed = [test for key in ("f2p_tests", "s2p_tests", "n2p_tests") if row.get(key) for test in mapping(row, key)]
    if not fixed:
        raise ValueError("f2p_tests: no test passes after the change that did not before")
    base: dict[str, Any] = mapping(row, "base")
    return Task(
        id=text(row, "instance_id", f"{org}__{name}-{number}"),
        corpus="multi-swe-bench",
        split=split,
        language=language_of(touched(solution)),
        family=f"{org}/{name}",
        source=Source(
            repo=f"https://github.com/{org}/{name}",
            base_commit=text(base, "sha"),
            image=f"mswebench/{org}_m_{name}:pr-{number}".lower(),
            workdir=f"/home/{name}",
        ),
        issue=_issue(row),
        test=TestPlan(
            command=Command(["bash", "/home/test-run.sh"]),
            parser="multi-swe-bench",
            fail_to_pass=list(dict.fromkeys(fixed)),
            pass_to_pass=list(mapping(row, "p2p_tests")) if row.get("p2p_tests") else [],
            timeout_s=3600.0,
            protect=touched(test_patch),
        ),
        solution=solution,
        created_at=str(row.get("created_at") or ""),
        provenance={"pull_request": f"https://github.com/{org}/{name}/pull/{number}"},
    )


def _issue(row: Row) -> str:
    """The issues that the pull request resolves; its own text, which mentions the repair, only if there is none."""
    issues = row.get("resolved_issues") or [row]
    if not isinstance(issues, list) or not all(isinstance(issue, dict) for issue in issues):
        raise ValueError("resolved_issues: a list of objects is needed")
    return "\n\n".join(f"{text(issue, 'title', '')}\n\n{text(issue, 'body', '')}".strip() for issue in issues)


CORPUS = of_rows("multi-swe-bench", "ByteDance-Seed/Multi-SWE-bench", ("test",), convert, from_documentation=True)
