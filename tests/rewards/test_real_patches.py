"""Developers' patches from real corpora are read whole, and hardly one is named a cheat."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from posixpath import splitext

from crrl.rewards import exploit_code, exploits, parsers, patching
from crrl.rewards.command_judge import Rules
from crrl.rewards.patching import parse
from crrl.rewards.similarity import changed_lines, sides
from crrl.task import Task
from crrl.tasks.corpora import find, load


def patches(test_data: Path) -> list[str]:
    found = []
    for file in sorted([*test_data.glob("swe-bench/**/*.jsonl"), *test_data.glob("swe-gym/*.jsonl")]):
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        found += [row[key] for row in rows for key in ("patch", "test_patch") if row.get(key)]
    return list(dict.fromkeys(found))


def test_real_patches_are_read_whole(test_data: Path) -> None:
    found = patches(test_data)
    assert len(found) > 10
    for patch in found:
        assert len(parse(patch)) == patch.count("diff --git ")
        read = [line for both in sides(patch).values() for side in both for line in side]
        body = [line for line in patch.splitlines() if line[:1] in "+-" and line[:4] not in ("+++ ", "--- ")]
        assert len(read) == sum(bool(line[1:].strip()) for line in body)
        assert changed_lines(patch, patch) == 1.0 and changed_lines("", patch) == 0.0


CORPORA = [
    ("swe-bench-verified", "swe-bench/SWE-bench_Verified/test.parquet"),
    ("swe-bench-lite", "swe-bench/SWE-bench_Lite"),
    ("swe-bench", "swe-bench/SWE-bench/dev.parquet"),
    ("swe-bench-multilingual", "swe-bench/SWE-bench_Multilingual"),
    ("swe-gym", "swe-gym/SWE-Gym.train.sample.parquet"),
    ("swe-smith", "swe-smith"),
    ("gitbug-java", "gitbug-java"),
    ("bugsinpy", "bugsinpy"),
    ("quixbugs", "quixbugs"),
    ("polyglot", "polyglot"),
    ("defects4j", "defects4j/v2.0.1"),
]
# Fixes that do what they are named for: three come with a test's file, one changes a file with settings of pytest.
NAMED = {"bugsinpy-black-6", "bugsinpy-fastapi-1", "bugsinpy-pysnooper-1", "pylint-dev__pylint-4661"}


def test_known_fixes_are_not_named_cheats(test_data: Path) -> None:
    tasks = [task for corpus, path in CORPORA for task in load(find(corpus), test_data / path).tasks if task.solution]
    assert len(tasks) > 800
    assert {task.id for task in tasks if set(names(task))} - NAMED == set()


def names(task: Task) -> Iterator[str]:
    """As `exploits.detect`; where the files are not at hand, Python is read by blocks of lines that were added."""
    files, patch = task.source.files, parse(task.solution or "")
    restored = {part.path: added(part) for part in parse(task.test.test_patch)} | task.test.restore
    there = set(files or ()) | {part.old for part in patch if part.old}
    rules = Rules(task, restored, there.__contains__)
    if files is not None:
        read = patching.reader(None, files)
        changed = patching.apply(task.solution or "", read, rules.covers)
        yield from exploits.detect(task.solution or "", changed, read, rules, restored)
        return
    tests = exploit_code.literals(restored)
    for part in patch:
        yield from exploits._in_path(part, part.path, rules)
        if part.path.endswith(".py") and not rules.covers(part.path):
            before, after = ({n for b in blocks(part, sign) for n in in_block(part.path, b, tests)} for sign in "-+")
            yield from after - before
        elif not rules.covers(part.path):
            yield from exploit_code.in_lines(splitext(part.path)[1], added(part).splitlines(), tests)


def added(part: patching.FilePatch) -> str:
    return "\n".join(line[1:] for line in part.lines if line[0] == "+")


def in_block(path: str, block: str, tests: frozenset[object]) -> set[str]:
    return exploit_code.in_python(path, b"", block.encode(), tests)


def blocks(part: patching.FilePatch, sign: str) -> Iterator[str]:
    for hunk in part.hunks:
        lines = [line[1:] if line[0] == sign else "" for line in hunk.body]
        text = "\n".join(lines)
        yield from (textwrap.dedent(block) for block in text.split("\n\n") if block.strip())


def test_the_guards_of_builds_leave_sources_alone() -> None:
    guards = parsers.PARSERS["surefire"].guards
    assert guards is not None and not guards.search("src/main/java/com/gradle/Utils.java")
    for path in ("gradle/wrapper/gradle-wrapper.properties", "gradle/libs.versions.toml", "a/pom.xml", ".mvn/x"):
        assert guards.search(path), path
