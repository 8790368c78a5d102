"""What changes in a system prompt from request to request without a meaning does not start the prompt over."""

from __future__ import annotations

import pytest
from gateway_kit import STOP, Bench

USER, MORE = {"role": "user", "content": "hi"}, {"role": "user", "content": "more"}
SAID = {"role": "assistant", "content": "one"}
SAME = [
    ("Request 0b6e4c1e-aaaa-4bbb-8ccc-0123456789ab.", "Request ffffffff-1234-4bbb-8ccc-ba9876543210."),
    ("It is 2026-11-27T10:04:01Z now.", "It is 2026-11-28T00:00:59.123Z now."),
    ("Today: 2026-11-27, 9:05", "Today: 2026-11-28, 23:59:59"),
    ("nonce=8f3a2c1d; go", "nonce=77b0c3d9; go"),
    ("trace 1795771562", "trace 1795771999"),
]
OTHER = [
    ("You have 5 tries.", "You have 4 tries."),
    ("Work in /tmp/run-8f3a2c1d/src.", "Work in /tmp/run-77b0c3d9/src."),
    ("Edit 8f3a2c1d.py", "Edit 77b0c3d9.py"),
    ("You use v2.1.332.", "You use v2.1.333."),
    ("It is Tuesday.", "It is Wednesday."),
    ("The port is 8080.", "The port is 8081."),
]


@pytest.mark.parametrize(("first", "second", "same"), [(*pair, True) for pair in SAME] + [(*p, False) for p in OTHER])
async def test_of_nonces_the_policy_goes_on_seeing_the_first(bench: Bench, first: str, second: str, same: bool) -> None:
    await bench.start(f"one{STOP}", f"two{STOP}")
    handle = bench.gateway.open("a")
    client = bench.client(handle)
    for system, history in ((first, [USER]), (second, [USER, SAID, MORE])):
        messages = [{"role": "system", "content": system}, *history]
        await client.chat.completions.create(model="m", messages=messages)  # type: ignore[arg-type]
    samples = (await bench.gateway.close("a")).samples
    assert (samples[1].parent == samples[0].id) is same
    prompt = bench.renderer.tokenizer.decode(samples[1].prompt_ids)
    assert (first if same else second) in prompt and (second if same else first) not in prompt
    assert [s.kind for s in samples] == ["main", "main"]


async def test_in_a_users_message_it_is_what_the_user_says(bench: Bench) -> None:
    await bench.start(f"one{STOP}", f"two{STOP}")
    client = bench.client(bench.gateway.open("a"))
    for said, history in (("trace 1795771562", []), ("trace 1795771999", [SAID, MORE])):
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": said}, *history])  # type: ignore[list-item]
    assert (await bench.gateway.close("a")).samples[1].parent is None


async def test_claude_codes_billing_header_is_no_prompt(bench: Bench) -> None:
    await bench.start(f"one{STOP}", f"two{STOP}")
    client = bench.anthropic(bench.gateway.open("a"))
    for version, history in (("394", [USER]), ("cf6", [USER, SAID, MORE])):
        billing = f"x-anthropic-billing-header: cc_version=2.1.332.{version}; cc_entrypoint=sdk-cli;"
        system = [{"type": "text", "text": billing}, {"type": "text", "text": "You repair."}]
        await client.messages.create(model="m", max_tokens=99, system=system, messages=history)  # type: ignore[arg-type]
    samples = (await bench.gateway.close("a")).samples
    assert samples[1].parent == samples[0].id
    assert "billing" not in bench.renderer.tokenizer.decode(samples[1].prompt_ids)
