"""The ledger: an address covers what was asked of the engine and what it gave, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest
from gateway_kit import STOP, Bench, call_text, make_tokenizer
from tree_kit import play

from crrl.errors import CrrlError
from crrl.gateway import load_renderer
from crrl.gateway.api import Sample
from crrl.gateway.ledger import addressed, damaged, ledger_hash, template_hash

OPS = ["append", "append", "again", "drop", "rewrite", "compact", "append"]


def samples() -> list[Sample]:
    async def run() -> list[Sample]:
        return await (await play(OPS)).close()

    return asyncio.run(run())


def test_two_equal_sessions_have_equal_addresses_and_other_times() -> None:
    one, two = samples(), samples()
    assert [s.address for s in one] == [s.address for s in two] and ledger_hash(one) == ledger_hash(two)
    assert len({s.address for s in one}) == len(one) and all(s.template == one[0].template for s in one)
    assert [s.times for s in one] != [s.times for s in two]
    for sample in one:
        assert list(sample.times.values()) == sorted(sample.times.values())
        assert set(sample.times) == {"received", "first", "last"}


@pytest.mark.parametrize(
    "change",
    [
        {"ids": [9, 9]},
        {"logprobs": [-1.0, -1.0 - 1e-12]},
        {"versions": [7, 7]},
        {"params": {"temperature": 0.9}},
        {"finish": "length"},
        {"template": "other"},
        {"appended": [1, 2, 3, 3]},
    ],
)
def test_any_change_is_found_and_changes_the_descendants(change: dict) -> None:
    first = Sample("a", "s", None, [1, 2, 3], [4, 5], [-1.0, -1.0], [0, 0], {"temperature": 1.0})
    chain = [first, Sample("b", "s", "a", [6], [7], [-1.0], [0])]
    honest = addressed(chain)
    assert damaged(honest) == [] and damaged(chain) == []  # those of older runs have no address to compare
    changed = dataclasses.replace(honest[0], **change)
    assert "address" in damaged([changed])[0]
    assert len(damaged([changed, honest[1]])) == 2
    assert addressed([changed, chain[1]])[1].address != honest[1].address
    same = dataclasses.replace(honest[0], session="x", times={"received": 1.0}, kind="side", delivery="dropped")
    assert addressed([same])[0].address == honest[0].address


def test_samples_of_older_runs_are_read() -> None:
    new = msgspec.to_builtins(Sample("a", "s", None, [1], [2], [-1.0], [0]))
    old = {k: v for k, v in new.items() if k not in ("template", "times", "address")}
    (read,) = msgspec.msgpack.decode(msgspec.msgpack.encode([old]), type=list[Sample])
    assert read.address == "" and damaged([read]) == []


def test_the_template_hash_tells_renderers_apart() -> None:
    tokenizer = make_tokenizer()
    one = template_hash(load_renderer(tokenizer, "qwen3"))
    assert one == template_hash(load_renderer(make_tokenizer(), "qwen3"))
    tokenizer.add_tokens(["system\ns"])  # the same template, in other tokens
    assert template_hash(load_renderer(tokenizer, "qwen3")) != one


async def test_a_sample_tells_what_was_asked_and_what_was_used(bench: Bench) -> None:
    await bench.start(call_text("ls"), f"ok{STOP}")
    handle = bench.gateway.open("a", seed=3)
    await bench.client(handle).chat.completions.create(
        model="m", messages=[{"role": "user", "content": "go"}], temperature=0, top_p=0.5, max_tokens=77, seed=1
    )
    (sample,) = (await bench.gateway.close("a")).samples
    assert sample.params["temperature"] == 1.0 and sample.params["max_tokens"] == 77
    assert sample.params["asked_temperature"] == 0 and sample.params["asked_top_p"] == 0.5
    assert sample.params["asked_seed"] == 1 and sample.params["seed"] != 1


async def test_an_evaluation_says_how_it_truncated(bench: Bench) -> None:
    await bench.start("ok")
    with pytest.raises(CrrlError, match="neither top_p nor top_k"):
        bench.gateway.open("a", top_p=0.8)
    bench.gateway._info = dataclasses.replace(bench.gateway._info, truncates=True)
    handle = bench.gateway.open("a", top_p=0.8, top_k=20)
    await bench.client(handle).chat.completions.create(model="policy", messages=[{"role": "user", "content": "hi"}])
    (request,) = bench.engine.requests
    (sample,) = (await bench.gateway.close("a")).samples
    assert (request.top_p, request.top_k) == (0.8, 20) == (sample.params["top_p"], sample.params["top_k"])
