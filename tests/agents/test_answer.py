"""The answering agent in a real box against a real gateway; only the engine plays a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crrl import sandbox
from crrl.agents.answer import AnsweringAgent, load_questions
from crrl.agents.api import AgentExit, AgentLimits, Endpoint
from crrl.conf import schema
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.errors import CrrlError, UsageError
from crrl.gateway import Budget, Gateway, load_renderer
from crrl.models import model_folder
from crrl.sandbox.api import Spec
from crrl.task import Source
from crrl.tasks.generator.generate import generate

FILES = {"m.py": "a = 1\nb = 1\n", "lib/n.py": "c = 3\n", "old.txt": "caf\udce9\n"}
TOKENIZER = load_tokenizer(model_folder("tiny"))
FIX = (
    "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n a = 1\n-b = 1\n+b = 2\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x\n"
)
TASK = replace(generate("train", 0, 0), issue="In n.py, c should be 4.", solution=FIX)
END = "<|im_end|>"


def block(path: str, search: str, new: str) -> str:
    return f"{path}\n<<<<<<< SEARCH\n{search}\n=======\n{new}\n>>>>>>> REPLACE\n"


Converse = Callable[..., Any]


@pytest.fixture
async def converse(state_dir: Path) -> Converse:
    """Play answers; gives (exit, the files after, what the policy was asked each time)."""

    async def run(
        *answers: str, turns: int = 1, show: str = "fixed", task: Any = TASK
    ) -> tuple[AgentExit, dict[str, bytes], list[str]]:
        boxes = sandbox.make(state_dir=state_dir)
        files = {path: text for path, text in FILES.items() if path != "old.txt"}
        box = await boxes.start(Spec(root=await boxes.prepare(Source(files=files))))
        await box.write("old.txt", FILES["old.txt"].encode("utf-8", "surrogateescape"))
        engine = ScriptedEngine([TOKENIZER(a, add_special_tokens=False)["input_ids"] for a in answers], step=50)
        gateway = Gateway(engine, load_renderer(TOKENIZER, "qwen3"))
        await gateway.start()
        agent = AnsweringAgent(schema.Agent(name="answer", prompts="repair-file"), Path("unused"), show)
        try:
            handle = gateway.open("s", Budget())
            endpoint = Endpoint(handle.base_url, handle.api_key, "policy", handle.context)
            limits = AgentLimits(turns=turns, tokens=2000, wall_s=60.0, spent_s=lambda: 0.0)
            exit = await agent.run(box, task, endpoint, limits)
            after = {path: await box.read(path) for path in FILES}
        finally:
            record = await gateway.close("s")
            await agent.close()
            await gateway.stop()
            await box.close()
            await boxes.close()
        return exit, after, [TOKENIZER.decode(sample.prompt_ids) for sample in record.samples]

    return run


async def test_the_answer_is_put_on_the_files(converse: Converse) -> None:
    said = "b is wrong.\n" + block("m.py", "b = 1", "b = 2")
    exit, after, asked = await converse(said + END)
    assert (exit.reason, exit.counts) == ("finished", {"turns": 1, "edits": 1, "malformed": 0})
    assert exit.output == said.strip() and after["m.py"] == b"a = 1\nb = 2\n"
    (question,) = asked
    assert TASK.issue in question and "m.py\n```\na = 1\nb = 1\n```" in question
    assert "c = 3" not in question, "only what the known fix changes is shown"


async def test_named_shows_the_files_of_the_issue(converse: Converse) -> None:
    exit, after, asked = await converse(block("n.py", "c = 3", "c = 4") + END, show="named")
    assert exit.reason == "finished" and after["lib/n.py"] == b"c = 4\n"
    assert "lib/n.py\n```\nc = 3\n```" in asked[0] and "b = 1" not in asked[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("I do not know.", "no search/replace block"),
        (block("m.py", "b = 3", "b = 2"), "Did you mean these"),
        (block("m.py", "b = 1", "b = 1"), "are the same"),
        ("m.py\n<<<<<<< SEARCH\nb = 1\n>>>>>>> REPLACE\n", "no line ======="),
        (block("lib/n.py", "", "x"), "exists, but was not shown"),
        (block("m.py/x.py", "", "x"), "m.py/x.py: File exists"),
    ],
)
async def test_what_fails_is_told_and_can_be_put_right(converse: Converse, answer: str, said: str) -> None:
    exit, after, asked = await converse(answer + END, block("m.py", "b = 1", "b = 2") + END, turns=2)
    assert exit.counts["malformed"] == 1 and exit.counts["turns"] == 2 and exit.reason == "finished"
    assert said in asked[1].split(answer)[-1] and after["m.py"] == b"a = 1\nb = 2\n"
    assert after["lib/n.py"] == b"c = 3\n"


async def test_with_one_turn_a_failed_answer_is_the_end(converse: Converse) -> None:
    exit, after, asked = await converse("No idea." + END)
    assert (exit.reason, exit.counts["malformed"], len(asked)) == ("finished", 1, 1)
    assert after["m.py"] == b"a = 1\nb = 1\n"


async def test_an_answer_that_is_cut_is_no_answer(converse: Converse) -> None:
    exit, after, _ = await converse(block("m.py", "b = 1", "b = 2") + "x" * 9000)
    assert exit.reason == "token_limit" and after["m.py"] == b"a = 1\nb = 1\n"


async def test_bytes_that_are_no_utf8_come_back(converse: Converse) -> None:
    fix = "--- a/old.txt\n+++ b/old.txt\n@@ -1 +1 @@\n-caf\udce9\n+tea\n"
    _, after, asked = await converse(block("old.txt", "café", "thé, café") + END, task=replace(TASK, solution=fix))
    assert "café" in asked[0] and after["old.txt"] == "thé, café\n".encode("latin-1")
    exit, after, _ = await converse(block("old.txt", "café", "☃") + END, task=replace(TASK, solution=fix))
    assert exit.counts["malformed"] == 1 and after["old.txt"] == b"caf\xe9\n"


async def test_without_a_known_fix_the_remedy_is_told(converse: Converse) -> None:
    with pytest.raises(CrrlError) as told:
        await converse("x" + END, task=replace(TASK, solution=None))
    assert "show=named" in (told.value.remedy or "")


def test_unknown_settings_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="repair-file"):
        load_questions("repair-files")
    with pytest.raises(UsageError, match="'named'"):
        AnsweringAgent(schema.Agent(prompts="repair-file"), tmp_path, show="name")
    (tmp_path / "mine.yaml").write_text("system: x\n")
    with pytest.raises(CrrlError, match="not a set of prompts"):
        load_questions(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("context", ["-1", "ten", "yes", "1.5"])
def test_context_is_a_number_of_lines(tmp_path: Path, context: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"system: s\ntask: t\nagain: a\ncontext: {context}\n")
    with pytest.raises(CrrlError, match="no number of lines"):
        load_questions(str(file))
