"""Functions to classify as tasks: whether one is vulnerable, the task of every corpus of labelled functions.

The repository is one file with the function; its name, the task's id and its issue say nothing of the label (a test
compares both versions of a pair). The label is `test.label`, which no agent sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from crrl.label import ANSWER, FORM, Label
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.diffs import between
from crrl.unified_diff import parse

LARGEST = 200_000  # characters of a function
SUFFIXES = {
    "python": "py",
    "c": "c",
    "cpp": "cpp",
    "java": "java",
    "javascript": "js",
    "typescript": "ts",
    "go": "go",
    "rust": "rs",
    "php": "php",
    "ruby": "rb",
}
LANGUAGES = {suffix: language for language, suffix in SUFFIXES.items()} | {
    **dict.fromkeys(("cc", "cxx", "hpp", "hh", "c++"), "cpp"),
    **dict.fromkeys(("h",), "c"),
    **dict.fromkeys(("jsx", "mjs", "cjs"), "javascript"),
    "tsx": "typescript",
}


def function_task(
    id: str,
    corpus: str,
    split: str,
    code: str,
    language: str,
    label: Label,
    *,
    family: str = "",
    created_at: str = "",
    provenance: Mapping[str, str] | None = None,
) -> Task:
    """Raises ValueError: the function cannot be shown, or a line of its label is not in it."""
    if not code.strip():
        raise ValueError("the function is empty")
    if len(code) > LARGEST:
        raise ValueError(f"the function has {len(code)} characters, more than {LARGEST}")
    if "\0" in code:
        raise ValueError("the function is binary")
    try:
        code.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the function is no text: {error.reason}") from None
    text = code if code.endswith("\n") else code + "\n"
    if beyond := [line for line in label.lines if line > text.count("\n")]:
        raise ValueError(f"label: line {beyond[0]} is beyond the function's {text.count(chr(10))}")
    path = f"function.{SUFFIXES.get(language, 'txt')}"
    return Task(
        id=id,
        corpus=corpus,
        split=split,
        language=language,
        family=family,
        source=Source(files={path: text}),
        issue=f"Is the function in {path} vulnerable? Write the answer to the file {ANSWER}, in this form:\n\n{FORM}",
        test=TestPlan(command=Command([]), parser="label", fail_to_pass=["label"], pass_to_pass=[], label=label),
        created_at=created_at,
        provenance=dict(provenance or {}),
    )


def pair_tasks(
    pair: str, corpus: str, split: str, before: str, after: str, language: str, cwe: list[str], **more: object
) -> list[Task]:
    """Both versions of a function, before and after its fix. Which of their ids ends in `a` tells nothing.

    Raises ValueError: both are the same, or one cannot be shown."""
    if before.split() == after.split():
        raise ValueError("the function before and after its fix is the same, but for white space")
    old, new = changed_lines(before, after)
    ids = (f"{pair}-a", f"{pair}-b")
    if hashlib.blake2b(pair.encode(), digest_size=1).digest()[0] % 2:
        ids = (ids[1], ids[0])
    versions = ((ids[0], before, True, old), (ids[1], after, False, new))
    return [
        function_task(id, corpus, split, code, language, Label(vulnerable, cwe, lines, pair), **more)  # type: ignore[arg-type]
        for id, code, vulnerable, lines in sorted(versions)
    ]


def changed_lines(before: str, after: str) -> tuple[list[int], list[int]]:
    """The lines of each version that a fix changes; where one side of a change has none, the lines around it."""
    counts = [text.removesuffix("\n").count("\n") + 1 for text in (before, after)]
    found: tuple[set[int], set[int]] = (set(), set())
    diff = between("f", _whole(before), _whole(after), context=0)
    for hunk in (hunk for part in parse(diff) for hunk in part.hunks):
        for side, written, count in zip(found, (hunk.old, hunk.new), counts, strict=True):
            start, _, length = written.partition(",")
            if length == "0":
                side |= {line for line in (int(start), int(start) + 1) if 1 <= line <= count}
            else:
                side |= set(range(int(start), int(start) + int(length or 1)))
    return sorted(found[0]), sorted(found[1])


def _whole(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def pairs_of(tasks: Iterable[Task]) -> dict[str, str]:
    """Task -> the pair it is of; tasks that stand alone are not in it."""
    return {t.id: t.test.label.pair for t in tasks if t.test.label is not None and t.test.label.pair}


def units(tasks: Iterable[Task]) -> list[list[Task]]:
    """What must not be parted: both versions of a pair, or a task alone; in the order of their first."""
    found: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        pair = task.test.label.pair if task.test.label is not None else ""
        found.setdefault(("pair", pair) if pair else ("task", task.id), []).append(task)
    return list(found.values())
