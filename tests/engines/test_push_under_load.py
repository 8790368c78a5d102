"""Invariant 6, episodes ahead: pushes in the middle of 32 streams. Each goes on, and each token has its version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from engine_kit import Answer, collect, plain_logprobs, prompt, tiny_qwen3, until

from crrl.engines import Request
from crrl.engines.local import LocalEngine
from crrl.engines.wire import EngineServer, RemoteEngine
from crrl.learning.push import ModuleWeights

STREAMS, TOKENS, PUSHES = 32, 300, 3
LONG = 2000  # tokens of the first stream, which outlasts all pushes on a busy machine, too
HOLD_S = 1.0


async def test_pushes_in_the_middle_of_32_streams(make: Callable[..., LocalEngine], tmp_path_factory) -> None:
    """Through the wire that the worker has. None is refused or cut; versions only rise; every token is the choice of
    the policy whose version it bears; and the pushes hold nobody up for long."""
    engine = make(max_batch=24, context=LONG + 48)  # some streams wait for a slot meanwhile
    server = EngineServer(engine, tmp_path_factory.mktemp("s") / "e.sock")
    remote = RemoteEngine(server.path)
    models = [tiny_qwen3(seed=seed) for seed in range(PUSHES + 1)]
    await engine.push(ModuleWeights(models[0]), 0)
    lengths = [LONG, *[TOKENS] * (STREAMS - 1)]
    requests = [Request(f"r{i}", prompt(i, 5 + i), length, seed=i) for i, length in enumerate(lengths)]
    answers = [Answer(request) for request in requests]
    streams = [asyncio.create_task(collect(remote, r, a)) for r, a in zip(requests, answers, strict=True)]
    held = []
    for version in range(1, PUSHES + 1):
        before = server.tokens
        await until(lambda before=before: server.tokens > before + STREAMS * TOKENS // 10, 120)
        began, steps = time.monotonic(), engine.steps
        probe = await engine.push(ModuleWeights(models[version]), version)
        assert probe.version == version
        await until(lambda steps=steps: engine.steps > steps + 1, 60)
        held.append(time.monotonic() - began)
    await asyncio.gather(*streams)
    await remote.close()
    server.close()
    assert [(a.finish, len(a.ids)) for a in answers] == [("length", length) for length in lengths]
    seen = set()
    for answer in answers:
        assert answer.versions == sorted(answer.versions)
        seen |= set(answer.versions)
    assert seen == set(range(PUSHES + 1))
    assert set(answers[0].versions) == seen
    for answer in answers[::8]:
        whole = answer.request.prompt_ids + answer.ids
        by = [plain_logprobs(model, whole)[-len(answer.ids) :] for model in models]
        for at, (version, logprob) in enumerate(zip(answer.versions, answer.logprobs, strict=True)):
            assert logprob == pytest.approx(by[version][at], abs=2e-4)
    assert min(held) < HOLD_S, held  # of several: a busy machine holds up everybody
