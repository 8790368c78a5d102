"""The generated corpus: always the same, truly held out, and admitted only where tests tell bug from repair."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import msgspec
import pytest

from crrl.tasks.generator import families
from crrl.tasks.generator.cases import failing
from crrl.tasks.generator.floor import random_floor
from crrl.tasks.generator.generate import SPLITS, TEST_SPLITS, bug_of, generate, warmstart_bugs
from crrl.tasks.generator.records import fingerprint

PRINT = """
import json, sys
from crrl.tasks.generator.records import fingerprint
from crrl.tasks.generator.generate import SPLITS, generate
print(json.dumps([fingerprint(generate(split, 3, i)) for split in SPLITS for i in reversed(range(40))]))
"""


def test_a_task_depends_on_split_seed_and_index_alone() -> None:
    """In other processes, with other hash seeds, in another order."""
    here = [fingerprint(generate(split, 3, i)) for split in SPLITS for i in range(40)]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        there = json.loads(done.stdout)
        assert [x for k in range(len(SPLITS)) for x in reversed(there[k * 40 : (k + 1) * 40])] == here
    assert len({fingerprint(generate("train", seed, 0)) for seed in range(30)}) == 30


def test_no_program_of_a_test_split_is_ever_trained_on() -> None:
    trained = {bug_of("train", seed, i).fixed for seed in (0, 1) for i in range(200)}
    trained |= {bug.fixed for bug, _, _ in warmstart_bugs(seed=1, first=0, count=400, random_share=0.15)}
    for split in TEST_SPLITS:
        assert not trained & {bug_of(split, 0, i).fixed for i in range(100)}


def test_unseen_families_occur_nowhere_else() -> None:
    seen = {bug_of("train", 0, i).family for i in range(400)}
    seen |= {bug.family for bug, _, _ in warmstart_bugs(seed=1, first=0, count=400, random_share=0.15)}
    assert not seen & set(families.UNSEEN)
    assert {generate("unseen_families", 0, i).family for i in range(12)} == set(families.UNSEEN)


def test_the_warm_start_repairs_nothing_of_what_rl_has_to_learn() -> None:
    """Of those families it sees random edits only; by chance one may repair."""
    shown = [
        (bug, old, new)
        for bug, old, new in warmstart_bugs(seed=1, first=0, count=900, random_share=0.4)
        if bug.family in families.RL
    ]
    repaired = sum((old, new) == (bug.old_line, bug.new_line) for bug, old, new in shown)
    assert len(shown) > 250 and repaired / len(shown) < 0.3
    assert all(bug.family in families.SFT or (bug, old, new) in shown for bug, old, new in shown)


@pytest.mark.parametrize("split", SPLITS)
def test_every_task_is_a_bug_with_a_repair(split: str) -> None:
    for index in range(60):
        bug = bug_of(split, 5, index)
        assert [i for i, _ in failing(bug.buggy, bug.function, bug.cases)] == bug.failing != []
        assert failing(bug.fixed, bug.function, bug.cases) == []
        assert bug.buggy.replace(bug.old_line, bug.new_line) == bug.fixed
        ast.parse(bug.buggy)


def test_the_agent_sees_a_part_of_the_tests_and_nothing_of_the_repair() -> None:
    for index in range(30):
        task = generate("rl_instances", 0, index)
        files = task.source.files
        assert files is not None and task.solution
        (test_path,) = task.test.restore
        shown, judged = files[test_path].count("def test_"), task.test.restore[test_path].count("def test_")
        assert 0 < shown < judged == len(task.test.fail_to_pass) + len(task.test.pass_to_pass)
        repaired_line = next(line[1:].strip() for line in task.solution.splitlines() if line.startswith("+ "))
        assert all(repaired_line not in text.splitlines() for text in files.values())


def test_tasks_cross_the_process_boundary_unchanged() -> None:
    task = generate("train", 0, 0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=type(task)) == task


def test_the_random_floor_is_low_and_repeatable() -> None:
    for split in TEST_SPLITS:
        floor = random_floor(split, 0, 60)
        assert floor == random_floor(split, 0, 60) and floor.total == 180
        assert 0 < floor.solved / floor.total < 0.35
