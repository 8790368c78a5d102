"""Generated functions to classify: both versions compile, splits share nothing, and no shortcut tells the label."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from crrl.label import Label
from crrl.task import Task
from crrl.tasks.classification import changed_lines
from crrl.tasks.files import check
from crrl.tasks.generator.generate import generate
from crrl.tasks.generator.weaknesses import FAMILIES, RL, SFT, TEST_SPLITS, UNSEEN, versions, warmstart_pairs

TRAIN = [task for number in range(1500) for task in versions("train", 0, number, 0.6)]


def label(task: Task) -> Label:
    assert task.test.label is not None
    return task.test.label


def code(task: Task) -> str:
    (text,) = (task.source.files or {}).values()
    return text


def test_the_same_seed_the_same_functions() -> None:
    for split in ("train", *TEST_SPLITS):
        assert generate(split, 5, 7, ask="classify") == generate(split, 5, 7, ask="classify")
        assert generate(split, 5, 7, ask="classify") != generate(split, 6, 7, ask="classify")
    for number in range(20):
        both = [generate("rl_instances", 1, 2 * number + k, ask="classify") for k in (0, 1)]
        assert both == versions("rl_instances", 1, number, 0.6)
        assert {label(task).vulnerable for task in both} == {True, False} and len({label(t).pair for t in both}) == 1
        for task in both:
            check(task, measured=True)


def test_at_least_six_weaknesses_in_two_languages() -> None:
    by_language = {lang: {f.cwe for f in FAMILIES.values() if f.language == lang} for lang in ("python", "c")}
    assert all(len(found) >= 6 for found in by_language.values())
    for names in (RL, SFT, UNSEEN):
        assert {FAMILIES[name].language for name in names} == {"python", "c"}
    assert not set(RL) & set(SFT) and not set(UNSEEN) & {*RL, *SFT} and len([*RL, *SFT, *UNSEEN]) == len(FAMILIES)


def test_splits_share_no_function_and_no_unseen_family() -> None:
    warm = [pair for pair, _, _ in warmstart_pairs(1, 0, 1500, 0.5)]
    trained = {code(task) for task in TRAIN} | {text for pair in warm for text in (pair.before, pair.after)}
    families = {task.family for task in TRAIN} | {pair.family.name for pair in warm}
    assert families == {*RL, *SFT}
    for split, names in TEST_SPLITS.items():
        held = [generate(split, 9, index, ask="classify") for index in range(400)]
        assert {task.family for task in held} == set(names)
        assert not {code(task) for task in held} & trained
        assert len({code(task) for task in held}) > 380, "few are drawn twice"


def test_the_warm_start_shows_no_label_of_rls_families() -> None:
    for pair, _, shown in warmstart_pairs(1, 0, 300, 0.5):
        assert shown is (pair.family.name in SFT)


def test_both_versions_differ_where_the_label_says() -> None:
    for old, new in zip(TRAIN[::2], TRAIN[1::2], strict=True):
        before, after = (old, new) if label(old).vulnerable else (new, old)
        assert (label(before).lines, label(after).lines) == changed_lines(code(before), code(after))
        assert label(before).cwe == [FAMILIES[before.family].cwe]


def test_python_versions_are_python() -> None:
    for task in TRAIN:
        if task.language == "python":
            (function,) = ast.parse(code(task)).body
            assert isinstance(function, ast.FunctionDef) and len(function.body) <= 8


HEADERS = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
struct node { int id; int size; struct node *next; };
extern int count, use(void *), k_log(int);
extern struct node *find(char *);
extern size_t strlcpy(char *, const char *, size_t);
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_c_versions_compile(tmp_path: Path) -> None:
    """One of each family; a function may take a word as its name twice (`int word`, `char *word`) in no family."""
    for name, family in FAMILIES.items():
        if family.language != "c":
            continue
        split = next(split for split, names in TEST_SPLITS.items() if name in names)
        texts = [
            code(task)
            for n in range(40)
            for task in versions(split, 2, n * len(TEST_SPLITS[split]) + TEST_SPLITS[split].index(name), 0.6)
        ]
        for n, text in enumerate(texts):
            texts[n] = re.sub(r"^int \w+\(", f"int f{n}(", text)
        file = tmp_path / f"{name}.c"
        file.write_text(HEADERS + "".join(texts))
        done = subprocess.run(
            ["gcc", "-std=c11", "-w", "-fno-builtin", "-fsyntax-only", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (name, done.stderr[:500])


def test_no_word_and_no_length_tells_the_label() -> None:
    """The best rule of one word, or of the number of lines, that a careless reader could learn."""
    truth = [label(task).vulnerable for task in TRAIN]
    words = [set(re.findall(r"\w+|[^\w\s]+", code(task))) for task in TRAIN]
    best = max(
        abs(sum((word in of) == vulnerable for of, vulnerable in zip(words, truth, strict=True)) / len(truth) - 0.5)
        for word in {word for of in words for word in of}
    )
    assert best < 0.1
    by_length: dict[int, Counter[bool]] = {}
    for task in TRAIN:
        by_length.setdefault(code(task).count("\n"), Counter())[label(task).vulnerable] += 1
    assert sum(max(counts.values()) for counts in by_length.values()) / len(truth) < 0.55
