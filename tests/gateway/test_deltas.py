"""A session holds each token once, and its samples' prompts are all the same what the engine was asked."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from gateway_kit import STOP, Bench
from tree_kit import OPS, RENDERER, TreeAgent, play

from crrl.errors import CrrlError
from crrl.gateway.api import Ask, Sample
from crrl.gateway.canonical import Message
from crrl.gateway.ledger_file import LedgerFolder, read_ledger
from crrl.gateway.session import EngineFailed


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_an_agent_does_a_samples_prompt_is_what_the_engine_was_asked(seed: int, tmp_path) -> None:
    agent = await play(random.Random(seed).choices(OPS, k=30))
    samples = [sample for sample in await agent.close() if sample.finish != "cancelled"]
    asked = {tuple(request.prompt_ids) for request in agent.engine.requests}
    assert samples and {tuple(sample.prompt_ids) for sample in samples} <= asked
    for sample in samples:
        before = sample.before
        seen = [] if before is None else before.prompt_ids + before.ids
        assert sample.prompt_ids == seen + sample.appended
    record = await agent.session.close()
    LedgerFolder(tmp_path)(record)
    read = read_ledger(tmp_path / "e.jsonl")
    assert read == record.samples and [s.prompt_ids for s in read] == [s.prompt_ids for s in record.samples]


async def test_a_long_conversation_is_held_once() -> None:
    agent = await play(["append"] * 60)
    tree = agent.session.tree
    held = sum(len(turn.appended) + len(turn.ids) for turn in tree.turns)
    roots = sum(turn.parent is None for turn in tree.turns)
    assert roots == 1 and held == tree.turns[-1].tokens  # in all, what the last turn has alone


async def test_raw_prompts_are_held_once(bench: Bench) -> None:
    """Of text and of ids: what stands in the tree grows with the length alone."""
    text = "once upon a time " * 20
    for raw in (text, bench.ids(text)):
        await bench.start(*[f"and on and on{STOP}"] * 20)
        session = bench.gateway.open("a")._session
        prompt: Any = raw
        for _ in range(16):
            turn = await session.ask(Ask(prompt=prompt))
            assert turn.task is not None
            await turn.task
            turn.delivered = True
            added = turn.answer.content + " more" if isinstance(prompt, str) else [*turn.ids, *bench.ids(" more")]
            prompt = prompt + added  # type: ignore[operator]
        turns = session.tree.turns
        assert [turn.parent for turn in turns] == [None, *turns[:-1]]
        assert sum(len(turn.appended) + len(turn.ids) for turn in turns) == turns[-1].tokens
        assert all(turn.place.text is None or len(turn.place.text) < 40 for turn in turns[1:])
        assert [r.prompt_ids for r in bench.engine.requests] == [s.prompt_ids for s in (await session.close()).samples]
        await bench.stop()


class Careless:
    """A renderer that changes a token in front of what it appends."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(RENDERER, name)

    def bridge(self, prompt_ids: list[int], ids: list[int], appended: list[Message]) -> list[int]:
        bridged = RENDERER.bridge(prompt_ids, ids, appended)
        at = self._place if self._place >= 0 else len(prompt_ids) + len(ids) + self._place
        bridged[at] += 1
        return bridged


@pytest.mark.parametrize("place", [0, 5, -1, -3])
async def test_a_renderer_that_changes_what_was_sampled_loses_the_episode(place: int) -> None:
    """Ours is the fault: nothing is sampled behind it, and the agent is not scored on it."""
    agent = TreeAgent()
    await agent.open()
    await agent.do("prompt")
    agent.session.tree._renderer = Careless(place)  # type: ignore[assignment]
    asked = len(agent.engine.requests)
    with pytest.raises(EngineFailed, match="renderer changed tokens"):
        await agent.do("append")
    with pytest.raises(EngineFailed):
        await agent.do("again")
    record = await agent.session.close()
    assert len(agent.engine.requests) == asked and "renderer" in record.engine_failed


def test_a_line_whose_parent_is_missing_is_named(tmp_path) -> None:
    samples: list[Sample] = asyncio.run(_samples())
    record = [sample for sample in samples if sample.parent is not None]
    lines = tmp_path / "x.jsonl"
    lines.write_bytes(msgspec.json.Encoder().encode_lines(record))
    with pytest.raises(CrrlError, match=r"x\.jsonl:1 is not a sample: .* not in the ledger"):
        read_ledger(lines)


async def _samples() -> list[Sample]:
    return await (await play(["append"] * 3)).close()
