"""R2E-Gym (Jain et al. 2025, arXiv:2504.07164): commits of thirteen Python repositories. From its documentation.

A row has no id, patch or lists of tests: the patch is made from `parsed_commit_content`, and `expected_output_json`
is the result of the hidden tests after the commit. The official reward asks that the results equal it; here the tests
that passed must pass, and one that failed after the developer's own repair is not asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import of_rows
from crrl.tasks.corpora.rows import Row, mapping, text
from crrl.tasks.corpora.swe_rows import TESTBED
from crrl.tasks.diffs import between

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Test files are not part of the repair: the hidden tests were made from them.
TEST_PATH = re.compile(r"(^|/)(tests?|testing)/|(^|/)test_[^/]*$|_test\.py$")
SCRIPT = 'ln -sfn /r2e_tests r2e_tests && PYTEST_ADDOPTS="$PYTEST_ADDOPTS test_CRRL_CANARY.py" bash run_tests.sh'


def convert(row: Row, split: str) -> Task:
    name, commit = text(row, "repo_name"), text(row, "commit_hash")
    expected = {
        COLOUR.sub("", test).split(" - ")[0]: status for test, status in mapping(row, "expected_output_json").items()
    }
    passed = [test for test, status in expected.items() if test and status == "PASSED"]
    before = _before(row)
    plan = TestPlan(
        command=Command(["bash", "-c", SCRIPT]),
        parser="r2e-gym",
        fail_to_pass=[test for test in passed if before.get(test) != "PASSED"] if before else [],
        pass_to_pass=[test for test in passed if before.get(test) == "PASSED"],
        timeout_s=300.0,
        protect=["r2e_tests/", "run_tests.sh"],
        baseline=not before,
    )
    if (before and not plan.fail_to_pass) or not passed:
        raise ValueError("expected_output_json: no test passes after the commit that did not before")
    change = mapping(row, "parsed_commit_content")
    return Task(
        id=f"{name}__{commit[:12]}",
        corpus="r2e-gym",
        split=split,
        language="python",
        family=name,
        source=Source(image=text(row, "docker_image"), workdir=TESTBED, hidden=["/r2e_tests"]),
        issue=text(row, "problem_statement"),
        test=plan,
        solution=_solution(change),
        created_at=str(change.get("commit_date") or ""),
        provenance={"commit": commit, "parent": str(change.get("old_commit_hash") or "")},
    )


def results(output: str) -> Iterator[tuple[str, str]]:
    """(name, PASSED | FAILED | ERROR) of the lines of pytest's summary; names as the corpus has them: an id without its
    file, `.` for `::`."""
    for match in re.finditer(r"^(PASSED|FAILED|ERROR) \S*?::(.*)$", COLOUR.sub("", output), flags=re.MULTILINE):
        yield match[2].split(" - ")[0].strip().replace("::", "."), match[1]


def _before(row: Row) -> dict[str, str]:
    """Statuses on the old commit, from the row's execution log; {} where it has none: they are measured then."""
    value = row.get("execution_result_content")
    result: dict[str, Any] = json.loads(value) if isinstance(value, str) and value.strip() else {}
    if not isinstance(result, dict):
        return {}
    return dict(results(str(result.get("old_commit_res_stdout") or "")))


def _solution(change: dict[str, Any]) -> str:
    parts = []
    for file in change.get("file_diffs") or []:
        try:
            path, old, new = file["header"]["file"]["path"], file["old_file_content"], file["new_file_content"]
        except (KeyError, TypeError):
            raise ValueError("parsed_commit_content: file_diffs needs header.file.path and both contents") from None
        if not TEST_PATH.search(path):
            parts.append(between(path, old or None, new or None))
    if not any(parts):
        raise ValueError("parsed_commit_content: changes nothing but tests")
    return "".join(parts)


CORPUS = of_rows("r2e-gym", "R2E-Gym/R2E-Gym-Subset", ("train",), convert, from_documentation=True)
