"""SWE-bench-Live (Zhang et al. 2025, arXiv:2505.23419): issues newer than most models, monthly. From its documentation.

Rows are SWE-bench's with `test_cmds`, and in the multi-language set `rebuild_cmds`, `print_cmds` and `docker_image`. A
`log_parser` that is not `pytest` is a Python program in the row: we do not run it, and grade the tests as pytest's
or not at all.
"""

from __future__ import annotations

from dataclasses import replace

from crrl.task import Command, Task
from crrl.tasks.corpora.corpus import of_rows
from crrl.tasks.corpora.rows import Row, names, text
from crrl.tasks.corpora.swe_rows import image_name, task_of


def convert(row: Row, split: str) -> Task:
    default = image_name("starryzhang", text(row, "instance_id"), "_1776_").removesuffix(":latest")
    task = task_of(row, "swe-bench-live", split, image=text(row, "docker_image", default))
    if (parser := text(row, "log_parser", "pytest").strip().lower()) != "pytest":
        raise ValueError(f"log_parser: only `pytest` can be graded here, this is {parser[:40]!r}")
    build, tests, shown = (
        names(row, key) if row.get(key) else [] for key in ("rebuild_cmds", "test_cmds", "print_cmds")
    )
    if not tests:
        raise ValueError("test_cmds: missing")
    plan = replace(
        task.test,
        command=_shell(tests),
        build=[_shell(build)] if build else [],
        report=_shell(shown) if shown else None,
        parser="swebench:parse_log_pytest:pass_and_fail",
        test_patch=text(row, "test_patch", ""),
    )
    return replace(task, test=plan)


def _shell(commands: list[str]) -> Command:
    return Command(["bash", "-c", " ; ".join(commands)], timeout_s=2400.0)


CORPUS = of_rows(
    "swe-bench-live",
    "SWE-bench-Live/SWE-bench-Live",
    ("verified", "lite", "full", "test"),
    convert,
    from_documentation=True,
)
