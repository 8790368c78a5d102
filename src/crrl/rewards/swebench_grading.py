"""Grading of SWE-bench-like corpora by the official package (extra `[swebench]`): its log parsers and its report.

What the official report says is kept to the letter: a skipped FAIL_TO_PASS test has failed, a skipped PASS_TO_PASS
test is maintained, ids that Verified cut short match what they begin, and a log without its markers resolves nothing.
Its guess that the infrastructure failed is made from the log, which patched code writes, too: it is told in the
output and never makes an episode lost (invariant 2). Nor does a log that one of its parsers stumbles over.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from crrl.errors import CrrlError
from crrl.rewards.api import TestResults, TestStatus
from crrl.task import Task

START, END = ">>>>> Start Test Output", ">>>>> End Test Output"


def require() -> None:
    """Raises CrrlError where the package is not installed."""
    if importlib.util.find_spec("swebench") is None:
        remedy = 'in the checkout of CodeRepairRL: .venv/bin/pip install -c constraints.txt -e ".[swebench]"'
        raise CrrlError("SWE-bench-like tasks are graded by swebench, which is missing.", remedy)


def grade(task: Task, log: str, patch: str) -> TestResults:
    """`log`: what the eval script printed, stderr merged. Where the task has no such script, which prints the markers,
    all of it is taken for test output.

    Raises CrrlError where the package is not installed, or has no parser of the task's name.
    """
    require()
    from swebench.harness import grading
    from swebench.harness.log_parsers import PARSER_REGISTRY
    from swebench.types import TestSpec

    _, parser, eval_type = task.test.parser.split(":")
    if parser not in PARSER_REGISTRY:
        raise CrrlError(f"Task {task.id}: swebench has no log parser {parser}.", "Use the version in constraints.txt.")
    spec = TestSpec(
        instance_id=task.id,
        image=task.source.image or "",
        eval_script_list=[],
        repo=task.family,
        version=task.provenance.get("version", ""),
        FAIL_TO_PASS=list(task.test.fail_to_pass),
        PASS_TO_PASS=list(task.test.pass_to_pass),
        log_parser=parser,
        eval_type=eval_type,
    )
    log = _marked(log, scripted=any(START in word for word in task.test.command.argv))
    prediction = {"instance_id": task.id, "model_name_or_path": "crrl", "model_patch": patch}
    tests: dict[str, TestStatus] = dict.fromkeys([*task.test.fail_to_pass, *task.test.pass_to_pass], "missing")
    with tempfile.TemporaryDirectory(prefix="crrl-grade-") as folder:
        file = Path(folder) / "test_output.txt"
        file.write_text(log, errors="replace")
        try:
            report = grading.get_eval_report(spec, prediction, str(file), True)[task.id]
        except Exception as error:  # of a parser that is not ours, by a log that patched code wrote
            said = f"swebench's {parser} fails on the log: {type(error).__name__}: {error}\n{log[-4000:]}"
            return TestResults(tests, reason="no_marker", output=said)
    if "tests_status" not in report:
        why = report.get("infra_failure_reason")
        said = f"swebench found no results in the log{f', and suspects {why}' if why else ''}\n{log[-4000:]}"
        return TestResults(tests, reason="no_marker", output=said)
    for kind in ("FAIL_TO_PASS", "PASS_TO_PASS"):
        tests |= dict.fromkeys(report["tests_status"][kind]["success"], "passed")
        tests |= dict.fromkeys(report["tests_status"][kind]["failure"], "failed")
    return TestResults(tests, output=log[-4000:])


def _marked(log: str, *, scripted: bool) -> str:
    """With the script's own markers alone: the others were printed by what ran, and so was each word of a failure that
    the official harness writes to its logs itself."""
    from swebench.harness import constants

    codes = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    for code in codes:
        log = log.replace(code, "")
    before, started, rest = log.partition(START) if scripted else ("", START, f"\n{log}\n{END}\n")
    inside, ended, after = rest.rpartition(END)
    if not started or not ended:
        return log
    return before + START + inside.replace(START, "").replace(END, "") + END + after
