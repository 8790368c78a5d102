"""Any data set on the hub: rows as SWE-bench has them or tasks of ours, with their revision; no network is said."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from crrl.errors import UsageError
from crrl.task import Task
from crrl.tasks import corpora
from crrl.tasks.corpora.hub import convert
from crrl.tasks.generator.generate import generate

FIX = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
ROW = {
    "instance_id": "a__b-1", "repo": "a/b", "base_commit": "0" * 40, "patch": FIX, "test_patch": "",
    "problem_statement": "x is wrong", "FAIL_TO_PASS": '["t.py::test"]', "PASS_TO_PASS": "[]", "image": None,
}  # fmt: skip


def test_rows_as_swe_bench_has_them_and_tasks_of_ours() -> None:
    task = convert(dict(ROW), "train", hub="org/name@abc")
    assert (task.corpus, task.provenance["hub"]) == ("org/name", "org/name@abc")
    assert task.source.image == "swebench/sweb.eval.x86_64.a_1776_b-1:latest"
    assert convert({**ROW, "docker_image": "x/y:1"}, "train", hub="org/name@abc").source.image == "x/y:1"
    ours: Task = generate("train", 0, 0)
    row = msgspec.to_builtins(ours) | {"solution": ours.solution, "extra": None}
    read = convert(row, "test", hub="org/name@abc")
    assert (read.id, read.split, read.source, read.solution) == (ours.id, "test", ours.source, ours.solution)


@pytest.mark.parametrize("row", [{}, {"source": {}, "test": {}}, {**ROW, "patch": "nonsense"}])
def test_other_rows_name_what_is_wrong(row: dict) -> None:
    with pytest.raises(ValueError, match=r"instance_id|command|patch"):
        convert(row, "train", hub="org/name@abc")


def test_no_network_says_how_to_bring_the_file() -> None:
    run = [sys.executable, "-m", "crrl.cli.main", "tasks", "list", "org/name@v1"]
    done = subprocess.run(
        run, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin"}, check=False
    )
    assert done.returncode == 1 and "org/name@v1 cannot be read from the hub" in done.stderr
    assert "hf download org/name --repo-type dataset" in done.stderr and "path=FILE" in done.stderr


def test_what_is_no_id_is_no_corpus() -> None:
    with pytest.raises(UsageError):
        corpora.find("./a/b/c")
