"""What a policy is told of a call that cannot be read, whatever it wrote."""

import time

import pytest

from crrl.agents.unreadable import unreadable

SAID = {
    '<tool_call>{"name": "shell", ': "ends too early",
    '<tool_call>{"name": shell}': "broken at 'shell}'",
    "<tool_call>ls": "no JSON object",
    '<tool_call>{"arguments": {}}': "no name",
    '{"name": "run", "arguments": {}}': "no tool 'run' (the tools are shell)",
    '{"name": "shell", "arguments": []}': "no JSON object",
    '{"name": "shell", "arguments": {}}': "does not stand where",
    '<tool_call>{"name": ' + "1" * 5000 + "}": "too many digits",
    '<tool_call>{"name": ' + "[" * 50_000: "nested too deeply",
}


@pytest.mark.parametrize("content", SAID, ids=lambda text: text[:30])
def test_what_is_wrong_is_told(content: str) -> None:
    told = unreadable(content, ["shell"])
    assert told is not None and SAID[content] in told and len(told) < 300


@pytest.mark.parametrize("content", ["", "Done.", "{}", 'It has the "name": x.', '"arguments": "name":'])
def test_what_attempts_no_call_is_none(content: str) -> None:
    assert unreadable(content, ["shell"]) is None


def test_a_long_answer_takes_no_time() -> None:
    began = time.process_time()
    assert unreadable('"name": ' * 10_000, ["shell"]) is None
    assert time.process_time() - began < 1
