"""Whatever else an agent leaves behind, and however it is named, a right repair is taken, applied and judged as one."""

# ruff: noqa: ASYNC221 (blocking calls are fine in tests)
from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from judge_kit import FILES, make_task

from crrl.rewards import patching
from crrl.rewards.similarity import changed_lines, sides
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.rewards.tests import solved
from crrl.sandbox.api import Spec
from crrl.task import Command, Source, Task
from crrl.tasks.corpora.bugsinpy import REPORT

REPAIR = "sed -i 's: / (len(xs) + 1): / len(xs):' stats.py"
BASE = {**FILES, "old.txt": "old\n", "crlf.txt": "a\r\nb\r\n", "folder/in.txt": "in\n", "empty.txt": ""}
NAMES = [
    'quo"te.txt', "back\\slash.txt", "\\", "tab\there.txt", "new\nline.txt", "carriage\rreturn.txt", "naïve 名前.txt",
    "caf\udce9.txt", "\udcff\udcfe\"\\\n.txt", " lead and trail ", "-rf", "--help", "a => b", "b/a b/b", "x\x7f\x01y",
    "diff --git a", "*?[x]", "$(touch RAN)`'", "\u202e\ufeff\ufffe.txt", "n" * 255, "d\nir/f\"ile",
]  # fmt: skip
OTHER = {
    "binary bytes": "printf 'a\\377\\376\\000b\\nc\\n' > stray",
    "an image": "head -c 20000 /dev/urandom > stray.png",
    "UTF-16": "printf 'x = 1\\n' | iconv -t UTF-16 > stray.txt",
    "a byte-order mark": "printf '\\357\\273\\277x\\n' > stray.txt",
    "a link to a file": "ln -s README.md link",
    "a link to a folder": "ln -s /usr/lib link",
    "a link to nothing, in bytes": "ln -s $'no\\377where' $'li\\nnk'",
    "a link in the place of a file": "rm old.txt; ln -s README.md old.txt",
    "an executable file": "printf '#!/bin/sh\\n' > run.sh; chmod +x run.sh",
    "a changed mode": "chmod +x old.txt",
    "a changed mode and bytes": "chmod +x old.txt; printf '\\377\\n' >> old.txt",
    "a moved file": "mv old.txt 'new \"place\".txt'",
    "an empty file": "touch none",
    "an emptied file": ": > old.txt",
    "a filled file": "echo x > empty.txt",
    "deletions": "rm old.txt empty.txt; rm -r folder",
    "a folder in the place of a file": "rm old.txt; mkdir old.txt; echo x > old.txt/in",
    "a file in the place of a folder": "rm -r folder; printf 'x\\377' > folder",
    "carriage returns": "printf 'c\\r\\n' >> crlf.txt; printf 'x\\r\\ny' > new.txt",
    "without its carriage returns": "sed -i 's/\\r//' crlf.txt",
    "no newline at the end": "printf x >> README.md; printf x > new.txt",
    "a NUL in text": "printf 'x\\0\\n' >> README.md",
    "many deep folders": "d=$(printf 'd%.0s' $(seq 200)); mkdir -p $d/$d/$d/$d/$d/$d; echo x > $d/$d/$d/$d/$d/$d/f",
}


def xml_task(task: Task) -> Task:
    """The same task, for the command judge."""
    own = ["-o", "addopts=", "-o", "junit_family=xunit1", "--junitxml", REPORT, "tests", "test_CRRL_CANARY.py"]
    argv = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *own]
    command = Command(argv, env={"PYTHONPATH": SITE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    plan = replace(task.test, command=command, parser="pytest-xml", report=Command(["cat", REPORT]), timeout_s=60.0)
    return replace(task, test=plan)


async def patch_of(judge: TaskJudge, task: Task, *commands: list[str]) -> str:
    """What an agent leaves that runs these in its box."""
    box = await judge._boxes.start(Spec(root=await judge._boxes.prepare(task.source)))
    for command in commands:
        result = await box.exec(command, timeout_s=20.0)
        assert result.code == 0, result.output
    patch = await box.patch()
    await box.close()
    return patch


async def costs_nothing(judge: TaskJudge, task: Task, stray: list[str]) -> str:
    """The repair with `stray` beside it."""
    patch = await patch_of(judge, task, ["sh", "-c", REPAIR], stray)
    assert msgspec.json.decode(msgspec.json.encode(patch)) == patch  # it can be written down
    read = patching.reader((await judge._boxes.prepare(task.source)).lower, {})
    mine = patching.apply(patch, read, lambda path: False)
    assert len(mine) >= 2 and mine["stats.py"] is not None
    assert any("    return sum(xs) / len(xs)" in added for _, added in sides(patch).values())
    assert 0 < changed_lines(patch, task.solution or "") < 1
    for judged in (task, xml_task(task)):
        results = await judge.run(judged, patch)
        assert results.applied and solved(judged, results), results
        msgspec.json.encode(results)
    return patch


async def test_names(task_judge: TaskJudge) -> None:
    """All at once: each is a file of its own."""
    line = 'for name; do mkdir -p "$(dirname "./$name")"; printf "new\\n" > "./$name"; done'
    patch = await costs_nothing(task_judge, make_task(), ["bash", "-c", line, "bash", *NAMES])
    parts = {part.path: part for part in patching.parse(patch)}
    assert set(NAMES) == set(parts) - {"stats.py"}
    for name in NAMES:
        assert parts[name].lines[-1:] == ["+new"], name


@pytest.mark.parametrize("name", ['quo"te\\\t\n.txt', "caf\udce9.txt", "naïve"], ids=ascii)
async def test_names_of_the_base(task_judge: TaskJudge, tmp_path: Path, name: str) -> None:
    for path, text in {**FILES, name: "one\ntwo\n", f"gone {name}": "x\n"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "base"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    task = replace(make_task(), source=Source(repo=str(tmp_path), base_commit=head.strip()))
    line = 'printf "caf\\351\\n" >> "./$1"; rm "./gone $1"'
    patch = await costs_nothing(task_judge, task, ["bash", "-c", line, "bash", name])
    read = patching.reader((await task_judge._boxes.prepare(task.source)).lower, {})
    changed = patching.apply(patch, read, lambda path: False)
    assert changed[f"gone {name}"] is None and changed[name] == patching.File(b"one\ntwo\ncaf\xe9\n")


@pytest.mark.timeout(300)  # six patches, each judged twice, with decoys
@pytest.mark.parametrize("part", range(4))
async def test_other_strays(task_judge: TaskJudge, part: int) -> None:
    for name in list(OTHER)[part::4]:
        print(name)
        await costs_nothing(task_judge, make_task(BASE), ["bash", "-c", OTHER[name]])


async def test_a_byte_that_is_no_text_hides_nothing(task_judge: TaskJudge) -> None:
    """Neither the other files nor the rest of its own from those who look for cheats, or compare patches."""
    rest = "".join(f"    // {n} {n * n * 7919:x}\n" for n in range(300))  # long enough for git to write a delta
    task = make_task({**FILES, "Same.java": f"class Same {{\n{rest}}}\n"})
    cheat = f"class Same {{\n    @Override public boolean equals(Object o) {{ return true; }}\n{rest}}}\n"
    shell = 'printf \'%s\' "$1" > Same.java; printf \'// %b\\n\' "$2" >> "$3"'
    places = [("\\377", "Same.java"), ("\\000", "Same.java"), ("\\377", "other.txt"), ("\\351", "caf\udce9")]
    for text, path in places:
        patch = await patch_of(task_judge, task, ["bash", "-c", shell, "bash", cheat, text, path])
        (part,) = [part for part in patching.parse(patch) if part.path == "Same.java"]
        assert next(line for line in part.lines if line[0] == "+") == "+" + cheat.splitlines()[1], (text, path)
        assert not any(line[0] == "-" for line in part.lines)  # nothing of the class is gone
        assert any("equals(Object o)" in line for line in sides(patch)["Same.java"][1])


def test_a_picture_is_no_text() -> None:
    """Its bytes are looked at, and count for nothing in a comparison."""
    junk = bytes(range(128, 256)) * 40
    (part,) = patching.parse(binary(b"", junk))
    assert part.lines and sides(binary(b"", junk)) == {"x": ([], [])}
    assert sides(binary(b"", b"text\xff\n")) == {"x": ([], ["text\ufffd"])}


def binary(old: bytes, new: bytes) -> str:
    from crrl.sandbox.patch import binary_diff

    return binary_diff(b"x", ((0o100644, "1" * 40), (0o100644, "2" * 40)), {"1" * 40: old, "2" * 40: new}).decode()


@pytest.mark.parametrize("damage", ["literal 9\n", "literal 99999999999999999999\n", "literal 25\n~", "literal 25\nG{"])
def test_a_damaged_binary_difference_is_refused(damage: str) -> None:
    patch = re.sub(r"literal \d+\n", damage, binary(b"a\xff\n" * 5, b"b\xff\n" * 5), count=1)
    with pytest.raises(patching.PatchError):
        patching.apply(patch, patching.reader(None, {"x": "a\n"}), lambda path: False)
