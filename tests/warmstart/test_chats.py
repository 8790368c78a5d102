"""`crrl tasks demonstrate`: known fixes as chats that `crrl sft` reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crrl.agents.search_replace.apply import apply
from crrl.agents.search_replace.parse import parse
from crrl.cli.main import main
from crrl.engines.load import load_tokenizer
from crrl.gateway import load_renderer
from crrl.learning.sft_rows import read
from crrl.models import model_folder
from crrl.task import Source, Task
from crrl.tasks.diffs import between
from crrl.tasks.files import write_tasks
from crrl.tasks.generator.families import SFT
from crrl.tasks.generator.generate import bug_of, generate

BEFORE = {"a.py": "x = 1\r\ny = 2\r\n", "lib/b.py": "def f():\n    return 1\n"}
AFTER = {"a.py": "x = 1\r\ny = 3\r\n", "lib/b.py": "def f():\n    return 2\n", "new.py": "z = 1\n"}


def task(id: str, solution: str | None) -> Task:
    return replace(generate("train", 0, 0), id=id, source=Source(files=BEFORE), issue="y is wrong.", solution=solution)


def fix(after: dict[str, str | None]) -> str:
    return "".join(between(path, BEFORE.get(path), text) for path, text in after.items())


def written(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_generated_fixes_become_rows_of_sft(tmp_path: Path) -> None:
    out = tmp_path / "chats.jsonl"
    assert main(["tasks", "demonstrate", "generated", "count=20", "seed=3", f"out={out}", "prompts=tiny"]) == 0
    rows = written(out)
    for index, row in enumerate(rows):
        bug = bug_of("train", 3, index, rl_share=0.0)
        applied = apply(parse(row["messages"][-1]["content"], [bug.path]).blocks, {bug.path: bug.buggy})
        assert bug.family in SFT and applied.files == {bug.path: bug.fixed}
        assert bug.issue in row["messages"][0]["content"] and bug.buggy in row["messages"][0]["content"]
    found = read([out], load_renderer(load_tokenizer(model_folder("tiny")), "qwen3"), "solved", 1000, {})
    assert len(found.rows) == 20 and not found.faults
    assert all(10 < sum(row.trained) < len(row.ids) for row in found.rows)


def test_a_form_may_hold_the_whole_function(tmp_path: Path) -> None:
    out = tmp_path / "chats.jsonl"
    assert main(["tasks", "demonstrate", "generated", "count=20", f"out={out}", "prompts=repair-function"]) == 0
    for index, row in enumerate(written(out)):
        bug = bug_of("train", 0, index, rl_share=0.0)
        (block,) = parse(row["messages"][-1]["content"], [bug.path]).blocks
        assert "\n".join(block.readings[0].search) == bug.buggy.rstrip("\n")
        assert apply([block], {bug.path: bug.buggy}).files == {bug.path: bug.fixed}


def test_fixes_of_a_task_file(tmp_path: Path, state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "tasks.jsonl", tmp_path / "chats.jsonl"
    broken = fix({"a.py": AFTER["a.py"]}).replace("y = 2", "y = 9")
    bad = {"no-fix": None, "broken": broken, "removes": fix({"lib/b.py": None})}
    write_tasks(file, [task("good", fix(dict(AFTER))), *(task(id, solution) for id, solution in bad.items())])
    settings = [f"out={out}", f"sandbox.state_dir={state_dir}"]
    assert main(["tasks", "demonstrate", str(file), *settings]) == 1, "some are left out"
    said = capsys.readouterr().err
    for id, why in {"no-fix": "no known fix", "broken": "does not apply", "removes": "removes lib/b.py"}.items():
        assert any(line.startswith(f"{id}: ") and why in line for line in said.splitlines()), said
    (row,) = written(out)
    system, user, answer = row["messages"]
    assert (row["task"], system["role"], answer["role"]) == ("good", "system", "assistant")
    assert "y is wrong." in user["content"] and "new.py" not in user["content"]
    applied = apply(parse(answer["content"], list(BEFORE)).blocks, BEFORE)
    assert applied.files == AFTER and not applied.faults


def test_it_asks_where_the_chats_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "demonstrate", "generated"]) == 2
    assert "out=FILE.jsonl" in capsys.readouterr().err
    assert main(["tasks", "demonstrate", "generated", "out=x.jsonl", "prompts=none"]) == 2
    assert not Path("x.jsonl").exists()
