"""Pushes by other ways than the disk, and several servers at once, over real vLLM servers on the CPU: `make test-vllm`.
Every push is proved on every server, to 1e-4 nats in float32."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_kit import until
from vllm_kit import (
    LONG,
    SESSIONS,
    Answer,
    ask,
    ask_all,
    changed,
    forwarding,
    gap,
    meanwhile,
    processes,
    prompt,
    started,
    vllm_engine,
)

from crrl.conf.schema import Adapter
from crrl.engines import EngineError, Request, connect
from crrl.engines.load import load_model
from crrl.engines.vllm.client import VllmClient
from crrl.engines.vllm.engine import VllmEngine
from crrl.engines.vllm.sender import Sender
from crrl.errors import CrrlError, UsageError
from crrl.learning import lora
from crrl.learning.push import ModuleWeights, push_and_prove
from crrl.models import model_folder

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def pair() -> Iterator[VllmEngine]:
    """Two servers, which get their weights by streams."""
    torch.set_num_threads(1)
    made = started(vllm_engine(replicas=2, transport="stream"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def policies() -> dict[int, Any]:
    """Of the pair, by version."""
    return {0: load_model(model_folder("tiny"))}


@pytest.fixture
async def client(pair: VllmEngine) -> AsyncIterator[VllmClient]:
    made: Any = connect(pair.address)
    yield made
    await made.close()


async def push(engine: VllmEngine, policies: dict[int, Any]) -> int:
    version = max(policies) + 1
    policies[version] = await asyncio.to_thread(changed, policies[0], version)
    assert await push_and_prove(engine, policies[version], version, bound=CLOSE) < CLOSE
    return version


async def under_way(client: Any, scope: str) -> tuple[list[Answer], list[asyncio.Task[Answer]]]:
    """Long answers, each of its own session, all of which have begun."""
    answers = [Answer(Request(f"{scope}{i}", prompt(i), LONG, seed=i, scope=f"{scope}-{i}")) for i in range(SESSIONS)]
    streams = [asyncio.create_task(ask(client, answer.request, answer)) for answer in answers]
    await until(lambda: all(answer.ids for answer in answers), 120)
    return answers, streams


async def test_one_push_goes_to_all_servers_while_they_sample(pair: Any, client: Any, policies: Any) -> None:
    """Until each was seen at it: a server may have sampled to the end what it has not sent yet."""
    seen = set[int]()
    for _ in range(6):
        first = await push(pair, policies)
        version = first + 1
        policies[version] = changed(policies[0], version)

        async def pushing(version: int = version) -> None:
            assert await push_and_prove(pair, policies[version], version, bound=CLOSE) < CLOSE

        answers = await meanwhile(client, pushing, 6)
        assert {v for answer in answers for v in answer.versions} == {first, version}
        both = [answer for answer in answers if set(answer.versions) == {first, version}]
        for answer in both:
            assert answer.finish == "length" and answer.versions == sorted(answer.versions)
            old = answer.versions.count(first)
            one = Answer(Request("", answer.request.prompt_ids, 1))
            one.chunks = [type(answer.chunks[0])(answer.ids[:old], answer.logprobs[:old], [])]
            assert gap(one, policies[first]) < CLOSE
            rest = Answer(Request("", answer.request.prompt_ids + answer.ids[:old], 1))
            rest.chunks = [type(answer.chunks[0])(answer.ids[old:], answer.logprobs[old:], [])]
            assert gap(rest, policies[version]) < CLOSE
        seen |= {client._routes._of[answer.request.scope] for answer in both}
        if seen == {0, 1}:
            return
    pytest.fail(f"only {seen} got a push while it sampled")


async def test_both_servers_are_used_and_sessions_stay(pair: Any, client: Any, policies: Any) -> None:
    counted = [replica.tokens for replica in pair.replicas]
    placed = []
    for turn in range(2):
        requests = [Request(f"s{turn}-{i}", prompt(i), 16, seed=i, scope=f"session-{i}") for i in range(6)]
        await ask_all(client, requests)
        placed.append([client._routes._of[f"session-{i}"] for i in range(6)])
    assert placed[0] == placed[1] and sorted(placed[0]) == [0, 0, 0, 1, 1, 1]
    await until(lambda: all(now.tokens >= was + 96 for now, was in zip(pair.replicas, counted, strict=True)), 60)


async def test_a_push_that_does_not_fit_changes_nothing(pair: Any, client: Any, policies: Any) -> None:
    version = await push(pair, policies)
    broken = changed(policies[0], 5)
    with torch.no_grad():
        next(iter(broken.parameters()))[0, 0] = float("inf")
    with pytest.raises(CrrlError, match="infinity"):
        await pair.push(ModuleWeights(broken), version + 1)
    for answer in await ask_all(client, [Request(f"n{i}", prompt(i), 16, seed=i) for i in range(2)]):
        assert set(answer.versions) == {version} and gap(answer, policies[version]) < CLOSE


async def test_one_of_two_dies(pair: Any, client: Any, policies: Any) -> None:
    """The other one's sessions go on, and its own wait for it."""
    version = await push(pair, policies)
    second = processes(pair, 1)[1:]
    _, streams = await under_way(client, "two")
    for process in second:
        process.kill()
    ended = await asyncio.gather(*streams, return_exceptions=True)
    on = [client._routes._of[f"two-{i}"] for i in range(SESSIONS)]
    assert set(on) == {0, 1}
    assert [isinstance(end, EngineError) for end in ended] == [at == 1 for at in on]
    again = [Request(f"y{i}", prompt(i), 30, seed=i, scope=f"two-{i}") for i in range(4)]
    for answer in await ask_all(client, again):
        assert set(answer.versions) == {version} and gap(answer, policies[version]) < CLOSE


async def test_several_of_somebody_elses(pair: Any, policies: Any) -> None:
    """Over TCP, which the weights take, too."""
    await push(pair, policies)
    async with contextlib.AsyncExitStack() as ways:
        urls = [await ways.enter_async_context(forwarding(replica.server.socket)) for replica in pair.replicas]
        foreign = vllm_engine(url=",".join(urls), version=70, transport="stream")
        await asyncio.to_thread(started, foreign)
        try:
            other = await asyncio.to_thread(changed, policies[0], 71)
            assert await push_and_prove(foreign, other, 71, bound=CLOSE) < CLOSE
            client = connect(foreign.address)
            for answer in await ask_all(client, [Request(f"f{i}", prompt(i), 16, scope=str(i)) for i in range(4)]):
                assert set(answer.versions) == {71} and gap(answer, other) < CLOSE
            await client.close()
        finally:
            await asyncio.to_thread(foreign.close)
        with pytest.raises(UsageError, match="takes no adapters"):
            await asyncio.to_thread(started, vllm_engine(url=urls[0], transport="adapter", rank=4))
    assert all(replica.server.alive for replica in pair.replicas)
    await push(pair, policies)


async def test_a_stream_that_breaks_off_ends_all(
    pair: Any, client: Any, policies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of the pair: some weights are new and some are old, so that nothing may be sampled any more."""

    def half(self: Sender, connection: Any) -> None:
        with connection:
            connection.recv(64)
            connection.sendall(b"\0\0\0\x10{")

    with monkeypatch.context() as patched:
        patched.setattr(Sender, "_give", half)
        with pytest.raises(CrrlError, match="broke off"):
            await pair.push(ModuleWeights(policies[0]), max(policies) + 1)
    assert not any(replica.server.alive for replica in pair.replicas)
    monkeypatch.setattr("crrl.engines.vllm.client.START_S", 0.0)
    with pytest.raises(EngineError):
        await ask(client, Request("none", prompt(1), 5))


# An adapter beside base weights that never change ----------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted() -> Iterator[VllmEngine]:
    torch.set_num_threads(1)
    made = started(vllm_engine(transport="adapter", rank=4))
    yield made
    made.close()


def adapter_of(seed: int) -> Any:
    """The shipped policy with an adapter that has been trained."""
    made = lora.new(load_model(model_folder("tiny")), Adapter(name="lora", r=4, alpha=8), seed)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return made.eval()


async def test_an_adapter_alone_is_pushed(adapted: VllmEngine, tmp_path: Path) -> None:
    client = connect(adapted.address)
    base = load_model(model_folder("tiny"))
    answer = await ask(client, Request("b", prompt(1), 40))
    assert set(answer.versions) == {0} and gap(answer, base) < CLOSE, "an untrained adapter is the base"
    trained = adapter_of(1)

    async def pushing() -> None:
        assert await push_and_prove(adapted, trained, 1, bound=CLOSE) < CLOSE

    versions = [answer.versions for answer in await meanwhile(client, pushing, 3)]
    assert all(of == sorted(of) for of in versions) and any(set(of) == {0, 1} for of in versions)
    answer = await ask(client, Request("a", prompt(3), 40))
    assert set(answer.versions) == {1} and gap(answer, trained) < CLOSE
    assert gap(answer, base) > 0.05, "the adapter changes nothing: this would prove nothing"
    second = adapter_of(2)
    assert await push_and_prove(adapted, second, 2, bound=CLOSE) < CLOSE
    with torch.no_grad():
        next(p for n, p in trained.named_parameters() if "lora_A" in n)[0, 0] = float("nan")
    with pytest.raises(CrrlError, match="NaN"):
        await adapted.push(ModuleWeights(trained), 3)
    for process in processes(adapted)[1:]:
        process.kill()
    answer = await ask(client, Request("again", prompt(4), 40))
    assert set(answer.versions) == {2} and gap(answer, second) < CLOSE, "it came back with another policy"
    third = adapter_of(3)
    assert await push_and_prove(adapted, third, 4, bound=CLOSE) < CLOSE
    await client.close()


async def test_keys_and_values_of_an_old_adapter_stop_the_run(
    adapted: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: the caches are not dropped."""
    from crrl.learning.push import PushError

    await push_and_prove(adapted, adapter_of(10), 10, bound=CLOSE)
    with monkeypatch.context() as patched:
        patched.setattr(adapted.replicas[0], "drop_caches", lambda http: None)
        with pytest.raises(PushError, match=r"its log-prob is -\d"):
            await push_and_prove(adapted, adapter_of(11), 11)


async def test_somebody_elses_server_with_adapters(adapted: VllmEngine) -> None:
    """The last test of it: it has the adapter of whoever came last."""
    async with forwarding(adapted.replicas[0].server.socket) as url:
        foreign = vllm_engine(url=url, version=50, transport="adapter", rank=4)
        await asyncio.to_thread(started, foreign)
        try:
            client = connect(foreign.address)
            answer = await ask(client, Request("o", prompt(1), 20))
            assert set(answer.versions) == {50} and gap(answer, load_model(model_folder("tiny"))) < CLOSE
            assert await push_and_prove(foreign, adapter_of(51), 51, bound=CLOSE) < CLOSE
            await client.close()
        finally:
            await asyncio.to_thread(foreign.close)


def test_a_saved_adapter_is_served_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    policy = adapter_of(5)
    policy.save_pretrained(folder)
    engine = started(vllm_engine(folder, base=str(model_folder("tiny")), transport="adapter"))
    try:

        async def asked() -> Answer:
            client = connect(engine.address)
            try:
                return await ask(client, Request("s", prompt(6), 40))
            finally:
                await client.close()

        assert gap(asyncio.run(asked()), policy) < CLOSE
    finally:
        engine.close()
