"""The official grading of SWE-bench-like corpora, over the lists of every record at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crrl.errors import CrrlError
from crrl.rewards.tests import solved
from crrl.task import Task
from crrl.tasks.corpora import find, load

pytest.importorskip("swebench", reason="the extra [swebench] is not installed")

from crrl.rewards.swebench_grading import END, START, grade

PATCH = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n"


def log(task: Task, **changed: str) -> str:
    """What `pytest -rA` prints at its end: all tests passed but those that `changed` names (FAIL_TO_PASS[0]...)."""
    tests = dict.fromkeys([*task.test.fail_to_pass, *task.test.pass_to_pass], "PASSED")
    for name, status in changed.items():
        tests[getattr(task.test, name)[0]] = status
    lines = [f"{status} {test}" for test, status in tests.items() if status]
    return "\n".join(["+ : '" + START + "'", *lines, "+ : '" + END + "'", ""])


def pytest_tasks(test_data: Path) -> list[Task]:
    tasks = load(find("swe-bench-verified"), test_data / "swe-bench/SWE-bench_Verified").tasks
    tasks += load(find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet").tasks
    plain = (
        "parse_log_pytest",
        "parse_log_astropy",
        "parse_log_scikit",
        "parse_log_xarray",
        "parse_log_pytest_options",
    )
    chosen = [task for task in tasks if task.test.parser.split(":")[1] in plain]
    # A space in an id ends it in such a log: those are the ones that the corpus has cut short.
    return [
        task for task in chosen if not any(" " in test for test in (*task.test.fail_to_pass, *task.test.pass_to_pass))
    ]


def test_all_passed_resolves_and_one_failure_does_not(test_data: Path) -> None:
    tasks = pytest_tasks(test_data)
    assert len(tasks) > 40
    for task in tasks:
        good = grade(task, log(task), PATCH)
        assert good.reason == "complete" and solved(task, good), task.id
        for status in ("FAILED", "ERROR", "SKIPPED", ""):
            assert not solved(task, grade(task, log(task, fail_to_pass=status), PATCH)), (task.id, status)
        if task.test.pass_to_pass:
            assert not solved(task, grade(task, log(task, pass_to_pass="FAILED"), PATCH)), task.id
            assert solved(task, grade(task, log(task, pass_to_pass="SKIPPED"), PATCH)), task.id  # is maintained


def test_ids_that_verified_cut_short_match_what_they_begin(test_data: Path) -> None:
    tasks = load(find("swe-bench-verified"), test_data / "swe-bench/SWE-bench_Verified").tasks
    cut = [(t, test) for t in tasks for test in t.test.pass_to_pass if test.count("[") > test.count("]")]
    task, test = next(found for found in cut if found[0].test.parser.startswith("swebench:parse_log_pytest:"))
    whole = log(task).replace(f"PASSED {test}\n", f"PASSED {test}-more]\n")
    assert whole != log(task) and grade(task, whole, PATCH).tests[test] == "passed"


def test_a_log_without_its_end_resolves_nothing_and_is_never_lost(test_data: Path) -> None:
    """Not even where it looks like a fault of the infrastructure: patched code wrote it."""
    (task,) = load(
        find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet", ids=["getmoto__moto-5085"]
    ).tasks
    task = scripted(task)
    cut = grade(task, log(task).replace(END, "Cannot allocate memory"), PATCH)
    assert cut.reason == "no_marker" and set(cut.tests.values()) == {"missing"}
    assert "suspects out_of_memory" in cut.output
    nothing = grade(task, "", PATCH)
    assert not solved(task, nothing) and set(nothing.tests) == {*task.test.fail_to_pass, *task.test.pass_to_pass}


@pytest.mark.parametrize("scripts", [True, False])
def test_markers_that_what_runs_has_printed_change_nothing(test_data: Path, scripts: bool) -> None:
    """Neither results between markers of a patch's own, nor the words by which the official harness tells a failure."""
    tasks = load(find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet", ids=["getmoto__moto-5085"]).tasks
    task = scripted(tasks[0]) if scripts else tasks[0]
    lines = log(task)
    own = lines if scripts else lines.replace(START, "").replace(END, "")
    printed = [
        ">>>>> Patch Apply Failed",
        ">>>>> Tests Errored",
        ">>>>> Tests Timed Out",
        ">>>>> Reset Failed",
        START,
        END,
    ]
    for words in (*printed, f"{START}\n{END}", "\x00\x1b[31m\x85\ufffe\ufeff"):
        after = own.replace("PASSED ", f"{words}\nPASSED ", 1)
        assert solved(task, grade(task, after, PATCH)), words
    failed = log(task, fail_to_pass="FAILED")
    forged = f"{lines}{failed}" if scripts else f"{lines}{failed.replace(START, '').replace(END, '')}"
    assert not solved(task, grade(task, forged, PATCH))


def scripted(task: Task) -> Task:
    """With an eval script, which prints the markers."""
    command = replace(task.test.command, argv=["bash", "-c", f": '{START}'\n: '{END}'"])
    return replace(task, test=replace(task.test, command=command))


def test_lines_that_a_patch_prints_do_not_outvote_the_exit_code(test_data: Path) -> None:
    (task,) = load(
        find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet", ids=["getmoto__moto-5085"]
    ).tasks
    assert not solved(task, grade(task, log(task) + ">>>>> Test Exit Code: 1\n", PATCH))
    assert solved(task, grade(task, log(task) + ">>>>> Test Exit Code: 0\n", PATCH))


def test_every_parser_that_a_record_names_is_the_package_s(test_data: Path) -> None:
    from swebench.harness.log_parsers import PARSER_REGISTRY

    from crrl.tasks.corpora.swe_rows import OLDER

    named = {parser for _, parser in OLDER.values()} | {"parse_log_pytest_options"}
    for corpus in ("SWE-bench_Verified", "SWE-bench_Multilingual"):
        tasks = load(find(corpus.lower().replace("_", "-")), test_data / "swe-bench" / corpus).tasks
        named |= {task.test.parser.split(":")[1] for task in tasks}
    assert named <= set(PARSER_REGISTRY)
    (task,) = load(
        find("swe-gym"), test_data / "swe-gym/SWE-Gym.train.sample.parquet", ids=["getmoto__moto-5085"]
    ).tasks
    with pytest.raises(CrrlError, match="no log parser parse_log_nothing"):
        grade(replace(task, test=replace(task.test, parser="swebench:parse_log_nothing:pass_and_fail")), "", PATCH)


def test_a_log_that_a_parser_stumbles_over_repairs_nothing(test_data: Path) -> None:
    """That of immutable-js knows its instances alone, and raises on any other."""
    (task, *_) = pytest_tasks(test_data)
    odd = replace(task, test=replace(task.test, parser="swebench:parse_log_immutable_js:pass_and_fail"))
    results = grade(odd, log(task), PATCH)
    assert results.reason == "no_marker" and not solved(odd, results) and "parse_log_immutable_js" in results.output
