"""The local engine's life: seeds, limits, cancellation, rest, push, faults."""

from __future__ import annotations

import asyncio

import pytest
import torch
from engine_kit import VOCAB, Answer, collect, collect_all, plain_logprobs, prompt, tiny_qwen3, until

from crrl.engines import ContextLengthError, EngineError, Request
from crrl.engines.push import probe_ids
from crrl.errors import CrrlError
from crrl.learning.push import ModuleWeights


async def test_a_sample_depends_on_its_seed_and_not_on_its_company(make) -> None:
    requests = [Request(str(i), prompt(i, 10 + i), 20, seed=1000 + i) for i in range(8)]
    together = await collect_all(make(), requests)
    alone_engine = make()
    alone = [await collect(alone_engine, r) for r in reversed(requests)][::-1]
    assert [a.ids for a in together] == [a.ids for a in alone]
    other = await collect(alone_engine, Request("x", requests[0].prompt_ids, 20, seed=5))
    assert other.ids != together[0].ids


async def test_more_requests_than_slots(make) -> None:
    requests = [Request(str(i), prompt(i, 12), 3 + i % 5, seed=i) for i in range(20)]
    answers = await collect_all(make(max_batch=3), requests)
    assert [len(a.ids) for a in answers] == [r.max_tokens for r in requests]
    assert [a.ids for a in answers] == [a.ids for a in await collect_all(make(), requests)]


async def test_stop_ids_max_tokens_and_context(make) -> None:
    engine = make(context=40)
    free = await collect(engine, Request("a", prompt(1, 10), 100, seed=1))
    assert (free.finish, len(free.ids)) == ("length", 30)
    stop = free.ids[5]
    stopped = await collect(engine, Request("b", prompt(1, 10), 100, stop_ids=[stop], seed=1))
    assert stopped.finish == "stop"
    assert stopped.ids == free.ids[: free.ids.index(stop) + 1]
    short = await collect(engine, Request("c", prompt(1, 10), 4, seed=1))
    assert (short.finish, short.ids) == ("length", free.ids[:4])
    assert len((await collect(engine, Request("d", prompt(1, 39), 9))).ids) == 1
    with pytest.raises(ContextLengthError):
        await collect(engine, Request("e", prompt(1, 40), 9))


async def test_bad_requests_are_refused_and_the_engine_goes_on(make) -> None:
    engine = make()
    for bad in (Request("a", [], 4), Request("b", [1], 0), Request("c", [VOCAB], 4), Request("d", [-1], 4)):
        with pytest.raises(ValueError, match="request"):
            await collect(engine, bad)
    assert len((await collect(engine, Request("e", [1], 4))).ids) == 4


async def test_closing_the_stream_frees_the_slot(make) -> None:
    engine = make(context=100_000, max_batch=1)
    stream = engine.generate(Request("endless", [1], 90_000))
    await anext(stream)
    await stream.aclose()
    assert (await collect(engine, Request("next", [2], 3))).finish == "length"
    await until(lambda: not (engine._rows or engine._waiting))


async def test_cancel_by_id_running_and_waiting(make) -> None:
    engine = make(context=100_000, max_batch=1)
    running = asyncio.create_task(collect(engine, Request("r", [1], 90_000)))
    waiting = asyncio.create_task(collect(engine, Request("w", [1], 90_000)))
    await asyncio.sleep(0.1)
    await engine.cancel("w")
    assert (await waiting).finish == "cancelled"
    await engine.cancel("r")
    answer = await running
    assert answer.finish == "cancelled"
    assert answer.ids
    await engine.cancel("nobody")
    await until(lambda: not (engine._rows or engine._waiting))


async def test_at_rest_running_ones_freeze_and_new_ones_queue_then_all_go_on_unchanged(make) -> None:
    engine = make()
    request = Request("a", prompt(1, 10), 400, seed=3)
    expected = await collect(make(), request)
    answer = Answer(request)
    task = asyncio.create_task(collect(engine, request, answer))
    await until(lambda: bool(answer.ids))
    with pytest.raises(KeyError), engine.resting():
        late = asyncio.create_task(collect(engine, Request("late", prompt(2, 10), 5)))
        await asyncio.sleep(0.1)
        frozen = len(answer.ids)
        await asyncio.sleep(0.2)
        assert len(answer.ids) == frozen < 400
        assert not late.done()
        raise KeyError  # whoever computes meanwhile may fail: the engine wakes all the same
    assert len((await late).ids) == 5
    assert (await task).ids == expected.ids


async def test_an_engine_at_rest_lends_the_memory_of_keys_and_values(make) -> None:
    """All of it if nothing runs; else that of what has ended."""
    engine = make()
    request = Request("a", prompt(1, 100), 40, seed=3)
    first = await collect(engine, request)
    cache = engine._runner.cache
    assert cache.keys and engine._prefixes.tokens
    with engine.resting():
        assert not (cache.keys or cache.values or engine._prefixes.tokens)
    again = await collect(engine, request)
    assert (again.ids, again.logprobs) == (first.ids, first.logprobs) and engine.reused_tokens == 0
    answer = Answer(Request("long", prompt(2, 10), 400, seed=3))
    task = asyncio.create_task(collect(engine, answer.request, answer))
    await until(lambda: bool(answer.ids))
    with engine.resting():
        assert cache.keys and not engine._prefixes.tokens
    await task


async def test_a_push_to_an_engine_at_rest(make, plain) -> None:
    """What comes after it wakes is of the new weights alone."""
    engine, new = make(), tiny_qwen3(seed=1)
    answer = Answer(Request("a", prompt(1, 10), 400, seed=3))
    task = asyncio.create_task(collect(engine, answer.request, answer))
    await until(lambda: bool(answer.ids))
    with engine.resting():
        await asyncio.sleep(0.1)
        old = len(answer.ids)
        assert (await engine.push(ModuleWeights(new), 7)).version == 7
        await asyncio.sleep(0.1)
        assert len(answer.ids) == old
    await task
    assert answer.versions == [0] * old + [7] * (400 - old)
    ids = answer.request.prompt_ids + answer.ids
    assert answer.logprobs[old:] == pytest.approx(plain_logprobs(new, ids)[9 + old :], abs=1e-4)


async def test_push_under_running_streams(make, plain) -> None:
    """Before the push the old weights' log-probs, after it the new weights' given the same tokens."""
    engine = make()
    new = tiny_qwen3(seed=1)
    answers = [Answer(Request(str(i), prompt(0, 40) + prompt(i, 5), 400, seed=i)) for i in range(4)]
    tasks = [asyncio.create_task(collect(engine, a.request, a)) for a in answers]
    await until(lambda: all(len(a.ids) > 3 for a in answers))
    probe = await engine.push(ModuleWeights(new), 7)
    await asyncio.gather(*tasks)
    assert probe.version == (await engine.info()).version == 7
    assert probe.logprobs == pytest.approx(plain_logprobs(new, probe_ids(VOCAB)), abs=1e-4)
    for a in answers:
        switch = a.versions.index(7)
        assert a.versions == [0] * switch + [7] * (400 - switch)
        ids = a.request.prompt_ids + a.ids
        assert a.logprobs[:switch] == pytest.approx(plain_logprobs(plain, ids)[44 : 44 + switch], abs=1e-4)
        assert a.logprobs[switch:] == pytest.approx(plain_logprobs(new, ids)[44 + switch :], abs=1e-4)


async def test_no_prefix_of_old_weights_is_reused(make) -> None:
    engine, new = make(), tiny_qwen3(seed=1)
    await collect(engine, Request("a", prompt(0, 60), 5))
    await engine.push(ModuleWeights(new), 1)
    a = await collect(engine, Request("b", prompt(0, 60), 5))
    assert a.logprobs == pytest.approx(plain_logprobs(new, a.request.prompt_ids + a.ids)[59:], abs=1e-4)


class Tampered:
    """A state dict with one entry changed."""

    def __init__(self, module, change) -> None:
        self.state = dict(module.state_dict())
        change(self.state)

    def tensors(self):
        yield from self.state.items()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("model.norm.weight"), "model.norm.weight: missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra: the engine's model has no such tensor"),
        (lambda s: s.update({"model.norm.weight": torch.zeros(3)}), "shape"),
        (lambda s: s.update({"model.norm.weight": torch.full((32,), torch.nan)}), "NaN"),
    ],
)
async def test_a_push_that_does_not_fit_changes_nothing(make, plain, change, words: str) -> None:
    engine = make()
    with pytest.raises(CrrlError, match=words):
        await engine.push(Tampered(tiny_qwen3(seed=1), change), 1)
    ids = prompt(0, 30)
    assert (await engine.info()).version == 0
    assert await engine.score(ids) == pytest.approx(plain_logprobs(plain, ids), abs=1e-4)


async def test_tied_weights_may_come_under_one_name(make) -> None:
    new = tiny_qwen3(seed=1)
    probe = await make().push(Tampered(new, lambda s: s.pop("lm_head.weight")), 1)
    assert probe.logprobs == pytest.approx(plain_logprobs(new, probe_ids(VOCAB)), abs=1e-4)


async def test_a_push_is_a_copy(make) -> None:
    engine, trainer = make(), tiny_qwen3(seed=1)
    ids = prompt(0, 30)
    await engine.push(ModuleWeights(trainer), 1)
    before = await engine.score(ids)
    with torch.no_grad():
        trainer.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    assert await engine.score(ids) == before
    assert trainer.model.layers[0].mlp.down_proj.weight.requires_grad
    trainer(torch.tensor([ids]), labels=torch.tensor([ids])).loss.backward()
    assert trainer.config._attn_implementation != "crrl"


async def test_nan_logits_are_an_error_of_that_request_and_not_tokens(make, plain) -> None:
    healthy = Request("ok", [1, 2, 3], 10, temperature=0.0)
    expected = await collect(make(), healthy)
    assert 50 not in expected.ids
    engine = make()
    with torch.no_grad():
        engine._runner.model.lm_head.weight = torch.nn.Parameter(plain.lm_head.weight.clone(), requires_grad=False)
        engine._runner.model.model.embed_tokens.weight[50] = torch.nan
    bad = asyncio.create_task(collect(engine, Request("bad", [1, 2, 50], 10)))
    good = asyncio.create_task(collect(engine, healthy))
    with pytest.raises(EngineError, match=r"NaN for request bad at position 3"):
        await bad
    assert (await good).ids == expected.ids


async def test_a_dead_loop_fails_everything_at_once(make) -> None:
    engine = make(context=100_000)
    running = asyncio.create_task(collect(engine, Request("r", [1], 90_000)))
    await asyncio.sleep(0.1)
    engine._runner.forward = None  # type: ignore[assignment]
    with pytest.raises(EngineError, match="model loop died"):
        await asyncio.wait_for(running, 5)
    with pytest.raises(EngineError, match="model loop died"):
        await collect(engine, Request("r", [1], 5))
    with pytest.raises(EngineError):
        await engine.score([1, 2])


async def test_streaming_is_streaming(make) -> None:
    answer = await collect(make(), Request("a", [1], 400))
    assert answer.chunks > 3
