"""Answers and requests made to be slow to read: in linear time, on the loop that all agents share (invariant 2).

With an expression that looks at the rest from every start the first of each took minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from template_kit import every_key

from crrl.gateway.api import Ask
from crrl.gateway.canonical import Message, canonical, split_reasoning
from crrl.gateway.kinds import Signs
from crrl.gateway.renderer.arguments import Schemas, invocations, written
from crrl.gateway.renderer.calls import Marked, formats

N = 200_000
REQUESTS = ["<think>", "</think>", "<think></think>", "a", "a.", "1", "ab12", " ", "\n", "<a", "\n ", "2026-11-29 12:"]
ARGUMENTS = [
    "<parameter=a>",
    "<parameter=",
    "</parameter>",
    "<parameter=a></parameter>x",
    '<parameter name="a">',
    "<arg_key>",
    "<arg_key>a</arg_key>",
    "<arg_key>a</arg_key><arg_value>",
    "</arg_value>\n\n",
    '<invoke name="a">',
    "</invoke>",
    " ",
    "\n",
]


@contextmanager
def soon(seconds: float = 3) -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


@pytest.mark.parametrize("piece", REQUESTS)
def test_requests(piece: str) -> None:
    text = piece * (N // len(piece))
    with soon():
        for said in (text, f"<think>so</think>{text}"):
            canonical(Message("assistant", said))
            split_reasoning(Message("assistant", said))
        canonical(Message("system", text))
        Signs.of(Ask([Message("system", text), Message("user", text)]))


@pytest.mark.parametrize("piece", ARGUMENTS)
def test_arguments(piece: str) -> None:
    text = piece * (N // len(piece))
    with soon():
        for begun in (text, f"<parameter=a>{text}", f'<invoke name="x">{text}'):
            written(begun)
            invocations(begun)


@pytest.mark.parametrize(
    "piece", ["<function=a>", "<parameter=a>", " ", "\n", "{", '{"name":', "f(", "'", "x='", "[f(a='", ", "]
)
def test_blocks_of_calls(piece: str) -> None:
    ids = [1, *range(3, 8), 2]  # opener, five pieces, closer
    texts = dict.fromkeys(range(3, 8), piece * (N // 5 // len(piece)))

    def decode(shown: list[int]) -> str:
        return "".join({3: "<function=f><parameter=a>"}.get(i, "") + texts.get(i, "") for i in shown)

    with soon():
        for raw in (False, True):
            Marked("m", 1, 2, raw=raw).read(ids, decode, Schemas(None))


def test_calls_that_are_never_closed() -> None:
    (form, *_) = formats(lambda mark: {"<tool_call>": 1, "</tool_call>": 2}.get(mark))
    with soon():
        assert form.read([1] * 20_000, lambda ids: "x" * len(ids), Schemas(None)).malformed == 20_000


@pytest.mark.parametrize("key", sorted(every_key()))
def test_families(key: str) -> None:
    """The tokens of each family's calls alone, and white space within one."""
    renderer = every_key()[key]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    head = "<tool_call>\n<function=f>\n<parameter=a>\n"
    for text in (head + "</tool_call>" * 8000, "<tool_call>" * 8000, head + " " * 40_000):
        ids = renderer.tokenizer.encode(text)[:8000]
        with soon(6):
            renderer.parse(ids, tools)
