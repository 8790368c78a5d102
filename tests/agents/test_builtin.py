"""The built-in agent in a real box against a real gateway; only the engine plays a script."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from crrl import sandbox
from crrl.agents.api import AgentExit, AgentLimits, Endpoint
from crrl.agents.builtin import BuiltinAgent, cut
from crrl.conf import schema
from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.errors import CrrlError, LostError, UsageError
from crrl.gateway import Budget, Gateway, load_renderer
from crrl.models import model_folder
from crrl.sandbox.api import Box, Spec
from crrl.task import Source
from crrl.tasks.generator.generate import generate

FILES = {"m.py": "a = 1\nb = 1\n", "notes.txt": "hello\n"}
TOKENIZER = load_tokenizer(model_folder("tiny"))
TASK = generate("train", 0, 0)


@pytest.fixture
async def box(state_dir: Path) -> AsyncIterator[Box]:
    boxes = sandbox.make(state_dir=state_dir)
    box = await boxes.start(Spec(root=await boxes.prepare(Source(files=FILES))))
    yield box
    await box.close()
    await boxes.close()


def call(name: str, arguments: Any) -> str:
    body = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {body}}}\n</tool_call><|im_end|>'


def limits(**changed: Any) -> AgentLimits:
    values = {"turns": 9, "tokens": 2000, "wall_s": 60.0, "command_s": 10.0, "output_chars": 400, **changed}
    return AgentLimits(spent_s=values.pop("spent_s", lambda: 0.0), **values)


Converse = Callable[..., Any]


@pytest.fixture
async def converse(box: Box) -> Converse:
    """Play answers; gives (exit, what the policy was told after each answer)."""

    async def run(
        *answers: str, budget: Budget | None = None, edit: str = "strings", **changed: Any
    ) -> tuple[AgentExit, list[str]]:
        engine = ScriptedEngine([TOKENIZER(a, add_special_tokens=False)["input_ids"] for a in answers], step=50)
        gateway = Gateway(engine, load_renderer(TOKENIZER, "qwen3"))
        await gateway.start()
        if edit == "blocks":  # the prompts `full` warn earlier
            changed = {"tokens": 9000, "wall_s": 900.0, **changed}
        agent = BuiltinAgent(schema.Agent(prompts="tiny" if edit == "strings" else "full"), Path("unused"), edit)
        try:
            handle = gateway.open("s", budget or Budget())
            exit = await agent.run(
                box, TASK, Endpoint(handle.base_url, handle.api_key, "policy", handle.context), limits(**changed)
            )
        finally:
            record = await gateway.close("s")
            await agent.close()
            await gateway.stop()
        told = []
        for before, after in zip(record.samples, record.samples[1:], strict=False):
            seen = len(before.prompt_ids) + len(before.ids)
            assert after.prompt_ids[:seen] == before.prompt_ids + before.ids  # nothing was re-rendered
            text = TOKENIZER.decode(after.prompt_ids[seen:])
            inner = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
            told.append(inner.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>"))
        return exit, told

    return run


DONE = "Done.<|im_end|>"


async def test_it_looks_edits_and_stops(converse: Converse, box: Box) -> None:
    edit = call("edit", {"path": "m.py", "old": "b = 1", "new": "b = 2"})
    exit, told = await converse(call("shell", {"cmd": "cat m.py"}), edit, DONE)
    assert exit.reason == "finished"
    assert exit.counts == {"turns": 3, "tool_calls": 2, "tool_errors": 0, "malformed": 0, "edits": 1}
    assert told == ["a = 1\nb = 1", "ok"]
    assert "+b = 2" in await box.patch()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"path": "m.py", "old": "c = 1", "new": ""}, "error: text not found in m.py"),
        ({"path": "m.py", "old": " = 1", "new": ""}, "error: text occurs 2 times in m.py"),
        ({"path": "m.py", "old": "a = 1", "new": "a = 1"}, "error: old and new are the same"),
        ({"path": "no.py", "old": "x", "new": ""}, "error: no such file no.py"),
        ({"path": "m.py", "old": "", "new": "x"}, "error: m.py exists; give the text to replace as `old`"),
        ({"path": "../etc/passwd", "old": "x", "new": ""}, "error: "),
        ({"path": ".", "old": "x", "new": ""}, "error: "),
    ],
)
async def test_a_refused_edit_is_told_and_changes_nothing(
    converse: Converse, box: Box, arguments: dict, says: str
) -> None:
    exit, told = await converse(call("edit", arguments), DONE)
    assert told[0].startswith(says) and exit.counts["tool_errors"] == 1 and exit.counts["edits"] == 0
    assert await box.patch() == ""


async def test_a_new_file_is_made(converse: Converse, box: Box) -> None:
    _, told = await converse(call("edit", {"path": "new/n.py", "old": "", "new": "x = 1\n"}), DONE)
    assert told == ["ok"] and "+x = 1" in await box.patch()


def block(path: str, search: str, new: str) -> str:
    return f"{path}\n<<<<<<< SEARCH\n{search}\n=======\n{new}\n>>>>>>> REPLACE\n"


async def test_edits_in_blocks_change_several_files(converse: Converse, box: Box) -> None:
    blocks = block("m.py", "b = 1", "b = 2") + block("notes.txt", "hello", "bye") + block("new/n.py", "", "x = 1")
    exit, told = await converse(call("edit", {"blocks": blocks}), DONE, edit="blocks")
    assert told == ["ok"] and exit.counts["edits"] == 3 and exit.counts["tool_errors"] == 0
    patch = await box.patch()
    assert all(line in patch for line in ("+b = 2", "-hello", "+bye", "+x = 1"))


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (block("m.py", "b = 3", "b = 2"), "Did you mean these, from line 2?\nb = 1"),
        (block("m.py", "b = 1", "b = 1"), "are the same"),
        (block("no.py", "b = 1", "b = 2"), "there is no such file"),
        (block("m.py", "", "x").replace("\n\n", "\n"), "SEARCH is empty, but the file is not"),
        ("<<<<<<< SEARCH\nb = 1\n=======\nb = 2\n>>>>>>> REPLACE\n", "names no file"),
        ("m.py\n<<<<<<< SEARCH\nb = 1\n>>>>>>> REPLACE\n", "no line ======="),
        (block("../etc/passwd", "x", "y"), "names no file"),
        (block("data.bin", "x", "y"), "no text"),
    ],
)
async def test_refused_blocks_are_told_and_the_others_stand(
    converse: Converse, box: Box, blocks: str, says: str
) -> None:
    await box.write("data.bin", b"x\0")
    good = call("edit", {"blocks": blocks + block("notes.txt", "hello", "bye")})
    exit, told = await converse(call("edit", {"blocks": blocks}), good, DONE, edit="blocks")
    assert says in told[0] and told[0].startswith("error: ")
    assert says in told[1] and "1 of 2 blocks were applied" in told[1]
    assert exit.counts["tool_errors"] == 2 and exit.counts["edits"] == 1
    patch = await box.patch()
    assert "+bye" in patch and "m.py" not in patch


async def test_the_other_form_is_malformed(converse: Converse) -> None:
    strings = call("edit", {"path": "m.py", "old": "b = 1", "new": "b = 2"})
    exit, told = await converse(strings, call("edit", {"blocks": "b = 2"}), DONE, edit="blocks")
    assert told[0] == "error: edit needs 'blocks', a string" and "no search/replace block" in told[1]
    assert exit.counts["malformed"] == 2 and exit.counts["edits"] == 0


def test_a_form_that_does_not_exist_or_is_not_described(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'blocks'"):
        BuiltinAgent(schema.Agent(prompts="full"), tmp_path, edit="block")
    with pytest.raises(CrrlError, match="tiny does not describe"):
        BuiltinAgent(schema.Agent(prompts="tiny"), tmp_path, edit="blocks")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (call("shell", {}), "error: shell needs 'cmd', a string"),
        (call("shell", {"cmd": 1}), "error: shell needs 'cmd', a string"),
        (call("shell", {"cmd": "ls", "x": "y"}), "error: shell has no parameter 'x'"),
        (call("python", {"code": "1"}), "error: there is no tool 'python'; the tools are shell, edit"),
        (call("shell", '{"cmd": '), "error: the tool call could not be read"),
    ],
)
async def test_a_malformed_call_is_told_and_counted(converse: Converse, answer: str, says: str) -> None:
    exit, told = await converse(answer, DONE)
    assert told[0].startswith(says) and exit.counts["malformed"] == 1 and exit.reason == "finished"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"name": "shell", "arguments": {"cmd": "ls"}', "ends too early"),
        ('```json\n{"name": "shell", "arguments": {"cmd": "ls', "ends too early"),
        ('{"name": "shell" "arguments": {"cmd": "ls"}}', "is broken at"),
        ('{"name": "bash", "arguments": {"cmd": "ls"}}', "there is no tool 'bash' (the tools are shell, edit)"),
        ('{"name": "shell", "arguments": "ls"}', "its arguments are no JSON object"),
        ('I call {"name": "shell", "arguments": {"cmd": "ls"}}', "does not stand where your tool calls stand"),
        ("<tool_call>\nls\n</tool_call>", "it holds no JSON object"),
    ],
)
async def test_a_call_that_cannot_be_read_is_told_with_an_example(converse: Converse, answer: str, why: str) -> None:
    exit, told = await converse(answer, DONE)
    assert exit.counts["malformed"] == 1 and exit.counts["tool_calls"] == 0 and exit.reason == "finished"
    assert why in told[0] and '{"name": "shell", "arguments": {"cmd": "ls"}}' in told[0]


async def test_words_about_json_are_no_call(converse: Converse) -> None:
    exit, told = await converse('The file holds {"name": "x", "version": 2}.')
    assert exit.reason == "finished" and not told and exit.counts["malformed"] == 0


async def test_what_commands_say(converse: Converse) -> None:
    commands = ["true", "echo out; echo err >&2; exit 3", "seq 1000", "sleep 30", "kill -9 $$"]
    exit, told = await converse(*(call("shell", {"cmd": c}) for c in commands), DONE, command_s=0.5)
    silent, failed, long, slow, killed = told
    assert silent == "" and failed == "out\nerr\nexit code 3"
    assert long.startswith("1\n2\n") and long.endswith("999\n1000") and "characters left out" in long
    assert slow == "killed after 0 s" or slow.startswith("killed after")
    assert killed == "exit code 137" and exit.reason == "finished"


async def test_it_is_warned_once_near_each_limit(converse: Converse) -> None:
    look = call("shell", {"cmd": "true"})
    exit, told = await converse(*[look] * 4, turns=4, wall_s=7.0, spent_s=lambda: 3.0)
    assert exit.reason == "turn_limit" and exit.counts["turns"] == 4
    assert told == ["warning: 4 seconds left", "", "warning: 1 turns left"]


async def test_it_stops_at_the_time_limit(converse: Converse) -> None:
    times = iter([0.0, 0.0, 0.0, 99.0])
    exit, _ = await converse(*[call("shell", {"cmd": "true"})] * 3, spent_s=lambda: next(times, 99.0))
    assert exit.reason == "time_limit"


async def test_tokens_and_context(converse: Converse) -> None:
    look = call("shell", {"cmd": "true"})
    exit, _ = await converse(look, look, tokens=12)
    assert exit.reason == "token_limit"
    exit, _ = await converse(*[look] * 3, budget=Budget(turns=2))
    assert exit.reason == "context_length"


async def test_an_engine_that_fails_loses_the_episode(converse: Converse) -> None:
    with pytest.raises(LostError):
        await converse(call("shell", {"cmd": "true"}))  # the script has run out


def test_output_is_cut_in_the_middle() -> None:
    text = "a" * 50 + "b" * 50
    assert cut(text, 100) == text
    assert cut(text, 11) == "aaaaaa\n[89 characters left out]\nbbbbb"
