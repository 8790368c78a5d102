"""A context that is full ends an episode only if the agent does not make room for itself."""

from __future__ import annotations

import openai
import pytest
from gateway_kit import STOP, TOOLS, Bench, call_text

from crrl.gateway import Budget

LONG = {"role": "user", "content": "Look at this. " * 400}
SHORT = {"role": "user", "content": "Repair it."}


async def ask(bench: Bench, handle, *messages: dict, tools: list | None = TOOLS) -> bool:
    """Whether it was answered."""
    try:
        await bench.client(handle).chat.completions.create(
            model="m", messages=list(messages), **({"tools": tools} if tools else {})
        )
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
        return False
    return True


async def test_an_agent_that_sums_up_and_goes_on_has_not_used_up_its_context(bench: Bench) -> None:
    summary = "All was looked at; it is to be repaired."
    await bench.start(call_text("cat a"), summary + STOP, "Done." + STOP)
    handle = bench.gateway.open("a", Budget(context=1000))
    assert await ask(bench, handle, SHORT) and not await ask(bench, handle, SHORT, LONG)
    assert handle.exhausted == "context"
    assert await ask(bench, handle, {"role": "user", "content": "Summarize."}, tools=None)
    assert await ask(bench, handle, {"role": "user", "content": f"Go on. {summary}"})
    record = await bench.gateway.close("a")
    assert record.exhausted == "" and [s.kind for s in record.samples] == ["main", "compaction", "main"]


@pytest.mark.parametrize("later", [None, {"role": "user", "content": "A title, please."}])
async def test_one_that_does_no_more_work_has(bench: Bench, later: dict | None) -> None:
    await bench.start(call_text("cat a"), "A repair" + STOP)
    handle = bench.gateway.open("a", Budget(context=1000))
    assert await ask(bench, handle, SHORT) and not await ask(bench, handle, SHORT, LONG)
    assert later is None or await ask(bench, handle, later, tools=None)
    record = await bench.gateway.close("a")
    assert record.exhausted == "context" and {s.kind for s in record.samples[1:]} <= {"side"}


async def test_another_budget_weighs_more(bench: Bench) -> None:
    await bench.start(call_text("cat a"), call_text("cat b"))
    handle = bench.gateway.open("a", Budget(context=1000, turns=2))
    assert await ask(bench, handle, SHORT) and not await ask(bench, handle, SHORT, LONG)
    assert await ask(bench, handle, SHORT, SHORT) and not await ask(bench, handle, SHORT, SHORT, SHORT)
    assert (await bench.gateway.close("a")).exhausted == "turns"
