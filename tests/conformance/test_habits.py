"""What agents were seen to do, in the tokens of every family; and the check sees each fault that it was made for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from crrl.cli.main import main
from crrl.conformance import bodies, check, habits, playing, tokens
from crrl.conformance.recording import Recorded, Reply
from crrl.gateway import kinds, load_renderer, tree
from crrl.gateway.canonical import Call, Message
from crrl.gateway.dialects import chat, history
from crrl.gateway.renderer.api import Parsed
from crrl.gateway.renderer.families import FAMILIES
from crrl.gateway.renderer.family import FamilyRenderer

TOKENIZER = tokens.tokenizer()
RECORDING = habits.recording()
KEYS = sorted({*FAMILIES} - {"gpt-oss"})  # whose vocabulary file is not here


@pytest.mark.parametrize("key", KEYS)
def test_every_family_takes_what_agents_do(key: str) -> None:
    report = asyncio.run(check.check(RECORDING, load_renderer(TOKENIZER, key)))
    assert report.passed, [p for session in report.sessions for p in session.problems]
    assert report.total("labelled") == report.total("answers") == report.total("requests")
    if key != "llama-3":  # which has no room for text beside a call, nor for two calls
        assert report.total("requests") == len(RECORDING) and report.total("matched") >= 20
        rows = {session.scenario: session.rows for session in report.sessions}
        assert rows["nonces"] == rows["late-system"] == rows["split-turn"] == rows["begun-answer"] == 1
        assert rows["compaction-in-other-words"] == 2


Break = Callable[[pytest.MonkeyPatch], Any]


def _no_structure(patch: pytest.MonkeyPatch) -> None:
    """Compaction by its words alone."""
    patch.setattr(kinds, "_summaries", lambda turns: {})


def _stripped(patch: pytest.MonkeyPatch) -> None:
    """String arguments without the white space at their edges."""
    real = FamilyRenderer.parse

    def parse(self: FamilyRenderer, *given: Any) -> Parsed:
        parsed = real(self, *given)
        calls = [dataclasses.replace(c, arguments=json.dumps(_trimmed(json.loads(c.arguments)))) for c in parsed.calls]
        return dataclasses.replace(parsed, calls=calls)

    patch.setattr(FamilyRenderer, "parse", parse)


def _trimmed(value: Any) -> Any:
    return {k: v.strip() if isinstance(v, str) else v for k, v in value.items()}


def _numbers(patch: pytest.MonkeyPatch) -> None:
    """Text that looks like a number is one."""
    real = FamilyRenderer.parse

    def parse(self: FamilyRenderer, *given: Any) -> Parsed:
        parsed = real(self, *given)
        calls = [Call(c.name, c.arguments.replace('"123"', "123"), c.id) for c in parsed.calls]
        return dataclasses.replace(parsed, calls=calls)

    patch.setattr(FamilyRenderer, "parse", parse)


def _dropped(patch: pytest.MonkeyPatch) -> None:
    """Late system messages are left out of the prompt."""
    real = FamilyRenderer.bridge

    def bridge(self: FamilyRenderer, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        return real(self, prompt_ids, ids, [m for m in appended if m.role != "system"])

    patch.setattr(FamilyRenderer, "bridge", bridge)


def _by_order(patch: pytest.MonkeyPatch) -> None:
    """Results answer calls in the order in which they come."""
    patch.setattr(chat, "put_in_order", list)


def _not_whole(patch: pytest.MonkeyPatch) -> None:
    """A turn in pieces is several turns."""
    patch.setattr(history, "_whole_turns", list)


def _no_part(patch: pytest.MonkeyPatch) -> None:
    """Part of the reasoning is other reasoning."""
    patch.setattr(tree, "same_reasoning", lambda sent, sampled: sent.reasoning in ("", sampled.reasoning))


def _new_turn(patch: pytest.MonkeyPatch) -> None:
    """A begun answer is a turn before the answer."""
    patch.setattr(tree, "split", lambda messages: (list(messages), None))


FAULTS: list[tuple[Break, str, str]] = [
    (_no_structure, "qwen3", "compaction-in-other-words"),
    (_stripped, "qwen3.6", "text-arguments"),
    (_numbers, "glm-5.1", "text-arguments"),
    (_dropped, "qwen3", "late-system"),
    (_by_order, "qwen3", "swapped-results"),
    (_not_whole, "qwen3", "split-turn"),
    (_no_part, "qwen3-thinking", "part-of-reasoning"),
    (_new_turn, "qwen3", "begun-answer"),
]


@pytest.mark.parametrize(("broken", "key", "scenario"), FAULTS)
def test_each_fault_fails_the_check(broken: Break, key: str, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = load_renderer(TOKENIZER, key)  # which proves the like at its start
    recorded = [one for one in RECORDING if one.scenario == scenario]
    assert asyncio.run(check.check(recorded, renderer)).passed
    broken(monkeypatch)
    assert not asyncio.run(check.check(recorded, renderer)).passed


def test_a_label_that_differs_fails_and_says_which() -> None:
    wrong = [dataclasses.replace(one, kind="subagent") for one in RECORDING if one.scenario == "nonces"]
    report = asyncio.run(check.check(wrong, load_renderer(TOKENIZER, "qwen3")))
    assert not report.passed and report.total("kinds_differ") == 3
    assert "request 1 is subagent by the recording, and main by the gateway" in report.sessions[0].problems


def test_the_table_of_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "check", "habits", "renderer=qwen3,glm-5"]) == 0
    said = capsys.readouterr().out
    assert said.count("passed\n") == 3 and "note" not in said
    assert main(["gateway", "check", "habits", "renderer=qwen3,glm-5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["renderers"]["glm-5"]["kinds_differ"] == 0
    assert main(["gateway", "check", "habits", "renderer=qwn3"]) == 2


def test_a_recording_without_labels_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(habits, "recording", lambda: [dataclasses.replace(one, kind=None) for one in RECORDING[:3]])
    assert main(["gateway", "check", "habits"]) == 0
    assert "3 requests are not labelled" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["qwen3", "deepseek-v3", "kimi-k2", "glm-5"])
def test_arguments_that_are_no_json_are_played_where_the_family_can(key: str) -> None:
    renderer = load_renderer(TOKENIZER, key)
    reply = Reply("So.", None, (("a", "edit", '{"old": '), ("b", "edit", '{"old": "x"}')))
    ids, expected = playing.played(renderer, reply)
    said = renderer.tokenizer.decode(ids)
    if key == "glm-5":  # it writes arguments one by one
        assert json.loads(expected.calls[0][2]) == {"arguments": '{"old": '} and "arguments" in said
    else:
        assert '{"old": ' in said and expected.calls == reply.calls


def test_results_are_read_in_the_order_of_their_calls_in_every_api() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    made = [{"role": "assistant", "tool_calls": [{"id": i, **call} for i in "ab"]}]
    made += [{"role": "tool", "tool_call_id": i, "content": f"of {i}"} for i in "ba"]  # type: ignore[misc]
    claude = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": i} for i in "ab"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": i, "content": f"of {i}"} for i in "ba"]},
    ]
    codex = [{"type": "function_call", "call_id": i} for i in "ab"]
    codex += [{"type": "function_call_output", "call_id": i, "output": f"of {i}"} for i in "ba"]
    for body in ({"messages": made}, {"messages": claude}, {"input": codex}):
        assert bodies.results(body) == [("a", "of a"), ("b", "of b")]
    assert bodies.renamed({"messages": claude}, {"a": "A"})["messages"][0]["content"][0]["id"] == "A"


def test_the_recording_is_one() -> None:
    assert all(isinstance(one, Recorded) and one.kind for one in RECORDING)
