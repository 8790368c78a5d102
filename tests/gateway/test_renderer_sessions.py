"""Sessions as Claude Code and Codex have them, under keys whose templates take one system message: to their closing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from gateway_kit import TOOLS, Bench
from template_kit import every_family, shipped, tokenizer

from crrl.gateway.api import Budget, Sample
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, load_renderer

FAMILIES = ["qwen3.5", "qwen3.8-thinking", "qwen3-vl", "minimax-m2", "nemotron-3", "hy3", "deepseek-v4"]
SHIPPED = ["nemotron_3_nano", "nemotron_3_ultra", "qwen3_6", "qwen3_8", "qwen3_vl"]
EVERY = every_family()
LS = Call("shell", '{"cmd":"ls"}')


@pytest.fixture(params=[*FAMILIES, *(f"generic {name}" for name in [*SHIPPED, "ministral_3"])])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    key, _, name = request.param.partition(" ")
    if name == "ministral_3":
        return load_renderer(tokenizer(name), key)
    return load_renderer(shipped(name, EVERY) if name else EVERY, key)


def texts(renderer: Renderer) -> list[str]:
    turns = [Message("assistant", "", [LS]), Message("assistant", "Done."), Message("assistant", "Bye.")]
    return [renderer.tokenizer.decode(renderer.assistant(turn)) for turn in turns]


def one_row(bench: Bench, samples: list[Sample], wanted: list[str]) -> None:
    """Each sample goes on from the one before; together they show every text once."""
    assert [s.parent for s in samples] == [None, *(s.id for s in samples[:-1])]
    shown = bench.renderer.tokenizer.decode(samples[-1].prompt_ids)
    assert [shown.count(text) for text in wanted] == [1] * len(wanted)
    assert [shown.index(text) for text in wanted] == sorted(shown.index(text) for text in wanted)


async def test_claude_code_puts_system_messages_anywhere(bench: Bench, renderer: Renderer) -> None:
    await bench.start(*texts(renderer))
    handle = bench.gateway.open("s", Budget())
    tools = [{"name": "shell", "description": "d", "input_schema": TOOLS[0]["function"]["parameters"]}]  # type: ignore[index]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Repair heliotrope."},
        {"role": "system", "content": "Mind cinnabar."},
    ]
    body = {"model": "m", "max_tokens": 99, "system": "You are ochre.", "tools": tools}
    async with httpx.AsyncClient(timeout=30) as http:
        for appended in (
            [{"role": "system", "content": "Mind indigo."}],
            [{"role": "user", "content": "More sienna."}, {"role": "system", "content": "Mind teal."}],
            [],
        ):
            answer = await http.post(f"{handle.base_url}/messages", json={**body, "messages": messages})
            assert answer.status_code == 200, answer.text
            content = answer.json()["content"]
            messages.append({"role": "assistant", "content": content})
            results = [
                {"type": "tool_result", "tool_use_id": part["id"], "content": "Found vermilion."}
                for part in content
                if part["type"] == "tool_use"
            ]
            messages += [{"role": "user", "content": results}] if results else []
            messages += appended
    samples = (await bench.gateway.close("s")).samples
    one_row(
        bench,
        samples,
        ["ochre", "heliotrope", "cinnabar", "vermilion", "indigo", "Done.", "sienna", "teal"],
    )


async def test_codex_sends_two_developer_messages(bench: Bench, renderer: Renderer) -> None:
    await bench.start(*texts(renderer)[1:])
    handle = bench.gateway.open("s", Budget())
    sent: list[dict[str, Any]] = [
        {"role": "developer", "content": "Permit ochre."},
        {"role": "developer", "content": "Mind cinnabar."},
        {"role": "user", "content": "Here is sienna."},
        {"role": "user", "content": "Repair heliotrope."},
    ]
    async with httpx.AsyncClient(timeout=30) as http:
        for appended in (
            [{"role": "developer", "content": "Now teal."}, {"role": "user", "content": "Go indigo."}],
            [],
        ):
            body = {"model": "m", "instructions": "You are Codex.", "input": sent}
            answer = await http.post(f"{handle.base_url}/responses", json=body)
            assert answer.status_code == 200, answer.text
            sent += [item for item in answer.json()["output"] if item["type"] != "reasoning"] + appended
    samples = (await bench.gateway.close("s")).samples
    one_row(bench, samples, ["Codex", "ochre", "cinnabar", "sienna", "heliotrope", "Done.", "teal", "indigo"])
    assert [s.finish for s in samples] == ["stop", "stop"]
