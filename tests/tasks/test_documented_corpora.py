"""Formats without a real record at hand: records written as their documentation says, so that loaders run at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crrl.task import Task
from crrl.tasks.corpora import find, load

PATCH = "diff --git a/lib/x.py b/lib/x.py\n--- a/lib/x.py\n+++ b/lib/x.py\n@@ -1 +1 @@\n-a\n+b\n"
TEST_PATCH = PATCH.replace("lib/x.py", "tests/test_x.py")
ROW = {
    "instance_id": "owner__name-7",
    "repo": "owner/name",
    "base_commit": "a" * 40,
    "patch": PATCH,
    "test_patch": TEST_PATCH,
    "problem_statement": "It fails.",
    "created_at": "2025-01-02T03:04:05Z",
    "FAIL_TO_PASS": ["tests/test_x.py::test_a"],
    "PASS_TO_PASS": ["tests/test_x.py::test_b"],
}


def loaded(tmp_path: Path, corpus: str, row: dict[str, Any]) -> Task:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    result = load(find(corpus), file)
    assert result.problems == [] and find(corpus).from_documentation
    return result.tasks[0]


def problem(tmp_path: Path, corpus: str, row: dict[str, Any]) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    (found,) = find(corpus).read(file)
    assert not isinstance(found, Task)
    return str(found)


def test_swe_bench_live(tmp_path: Path) -> None:
    row = ROW | {
        "test_cmds": ["pytest -rA"],
        "log_parser": "pytest",
        "rebuild_cmds": ["make"],
        "print_cmds": ["cat log"],
    }
    task = loaded(tmp_path, "swe-bench-live", row)
    assert task.source.image == "starryzhang/sweb.eval.x86_64.owner_1776_name-7"
    assert task.test.command.argv[2] == "pytest -rA" and task.test.build[0].argv[2] == "make"
    assert task.test.report and task.test.report.argv[2] == "cat log" and task.test.test_patch == TEST_PATCH
    assert "only `pytest`" in problem(tmp_path, "swe-bench-live", row | {"log_parser": "def parse(log): ..."})
    assert "test_cmds: missing" in problem(tmp_path, "swe-bench-live", ROW)


def test_swe_rebench(tmp_path: Path) -> None:
    config = {
        "test_cmd": "pytest --no-header -rA",
        "log_parser": "parse_log_pytest",
        "python": "3.9",
        "install": "pip install .",
    }
    task = loaded(tmp_path, "swe-rebench", ROW | {"install_config": config, "docker_image": "swerebench/x:latest"})
    assert task.source.image == "swerebench/x:latest" and task.provenance["python"] == "3.9"
    assert task.test.command.argv[2].endswith("\npytest --no-header -rA tests/test_x.py test_CRRL_CANARY.py")
    assert task.test.parser == "swebench:parse_log_pytest:pass_and_fail"
    assert "install_config: missing" in problem(tmp_path, "swe-rebench", ROW)


def r2e_row() -> dict[str, Any]:
    def changed(path: str) -> dict[str, Any]:
        return {"header": {"file": {"path": path}}, "old_file_content": "a\n", "new_file_content": "b\n"}

    commit = {"file_diffs": [changed("lib/x.py"), changed("tests/test_x.py")], "commit_date": "2020-05-06T07:08:09"}
    log = "PASSED r2e_tests/test_1.py::T::b\nFAILED r2e_tests/test_1.py::T::a - boom\n"
    return {
        "repo_name": "aiohttp",
        "docker_image": "namanjain12/aiohttp_final:abc",
        "commit_hash": "c" * 40,
        "problem_statement": "[ISSUE] It fails. [/ISSUE]",
        "parsed_commit_content": json.dumps(commit),
        "execution_result_content": json.dumps({"old_commit_res_stdout": log}),
        "expected_output_json": json.dumps({"T.a": "PASSED", "\x1b[1mT.b\x1b[0m": "PASSED", "T.c": "FAILED"}),
    }


def test_r2e_gym(tmp_path: Path) -> None:
    task = loaded(tmp_path, "r2e-gym", r2e_row())
    assert task.id == "aiohttp__cccccccccccc" and task.source.image == "namanjain12/aiohttp_final:abc"
    assert (task.test.fail_to_pass, task.test.pass_to_pass) == (["T.a"], ["T.b"])
    assert task.source.hidden == ["/r2e_tests"]
    assert task.solution == PATCH and task.created_at == "2020-05-06T07:08:09"
    without = loaded(tmp_path, "r2e-gym", r2e_row() | {"execution_result_content": ""})
    assert without.test.baseline and without.test.fail_to_pass == []
    assert "no test passes" in problem(tmp_path, "r2e-gym", r2e_row() | {"expected_output_json": '{"T.c": "FAILED"}'})
    assert "changes nothing but tests" in problem(
        tmp_path, "r2e-gym", r2e_row() | {"parsed_commit_content": '{"file_diffs": []}'}
    )


def test_multi_swe_bench(tmp_path: Path) -> None:
    ran = {"run": "PASS", "test": "FAIL", "fix": "PASS"}
    row = {
        "org": "cli",
        "repo": "cli",
        "number": 10388,
        "title": "Fix it",
        "body": "By doing this.",
        "base": {"label": "cli:trunk", "ref": "trunk", "sha": "d" * 40},
        "resolved_issues": [{"number": 1, "title": "It fails", "body": "When run."}],
        "fix_patch": PATCH.replace(".py", ".go"),
        "test_patch": TEST_PATCH,
        "f2p_tests": {"TestA": ran},
        "n2p_tests": {"TestN": ran},
        "s2p_tests": {},
        "p2p_tests": {"TestP": ran},
    }
    task = loaded(tmp_path, "multi-swe-bench", row)
    assert (task.id, task.language) == ("cli__cli-10388", "go")
    assert task.source.image == "mswebench/cli_m_cli:pr-10388" and task.source.base_commit == "d" * 40
    assert (task.test.fail_to_pass, task.test.pass_to_pass) == (["TestA", "TestN"], ["TestP"])
    assert task.issue == "It fails\n\nWhen run."
    assert "number: a whole number" in problem(tmp_path, "multi-swe-bench", row | {"number": "7"})
    assert "f2p_tests: no test" in problem(tmp_path, "multi-swe-bench", row | {"f2p_tests": {}, "n2p_tests": {}})


@pytest.mark.parametrize("corpus", ["swe-bench-live", "swe-rebench", "r2e-gym", "multi-swe-bench"])
def test_anything_at_all_is_a_problem_and_no_traceback(tmp_path: Path, corpus: str) -> None:
    rows: list[dict[str, Any]] = [{}, {"instance_id": 3}, {key: None for key in ROW}, {key: [] for key in ROW}]
    rows += [{**r2e_row(), key: value} for key in r2e_row() for value in (None, 3, [], {}, "{", "[1]")]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = list(find(corpus).read(file))
    assert len(found) == len(rows)
