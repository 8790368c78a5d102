"""The engine over a real vLLM server on the CPU: `make test-vllm`. One server serves most tests, so they go by version.
Every push is proved, to 1e-4 nats in float32."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from engine_kit import until
from transformers import PreTrainedModel
from vllm_kit import (
    RECORDED,
    RECORDINGS,
    STOP,
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

from crrl.engines import ContextLengthError, EngineError, Request, connect
from crrl.engines.load import load_local, load_model, load_tokenizer
from crrl.engines.vllm import protocol
from crrl.engines.vllm.client import MODEL, VllmClient
from crrl.engines.vllm.engine import VllmEngine
from crrl.engines.vllm.server import answer as json_of
from crrl.errors import CrrlError, UsageError
from crrl.learning.push import ModuleWeights, PushError, push_and_prove
from crrl.models import model_folder

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    torch.set_num_threads(1)
    made = started(vllm_engine())
    yield made
    made.close()


@pytest.fixture(scope="module")
def policies() -> dict[int, PreTrainedModel]:
    """By version: what was pushed so far."""
    return {0: load_model(model_folder("tiny"))}


@pytest.fixture
async def client(engine: VllmEngine) -> Any:
    made = connect(engine.address)
    yield made
    await made.close()


async def push(engine: VllmEngine, policies: dict[int, PreTrainedModel]) -> int:
    """The next version, proved."""
    version = max(policies) + 1
    policies[version] = await asyncio.to_thread(changed, policies[0], version)
    assert await push_and_prove(engine, policies[version], version, bound=CLOSE) < CLOSE
    return version


def of(answer: Answer, version: int) -> Answer:
    """Only the tokens of one version count."""
    assert set(answer.versions) == {version}
    return answer


async def test_tokens_come_with_their_log_probs_and_version(engine: Any, client: VllmClient, policies: Any) -> None:
    version = (await client.info()).version
    for temperature in (1.0, 0.7, 0.0):
        requests = [
            Request(f"t{temperature}-{i}", prompt(i), 48, temperature, stop_ids=[STOP], seed=2**63 + i)
            for i in range(8)
        ]
        for answer in await ask_all(client, requests):
            assert gap(of(answer, version), policies[version], temperature or 1.0) < CLOSE
            assert answer.finish == ("stop" if answer.ids[-1] == STOP else "length")
            assert len(answer.chunks) > 2  # it streams
            assert STOP not in answer.ids[:-1]
    assert await client.score(prompt(3)) == pytest.approx(await load_and_score(policies[version], prompt(3)), abs=CLOSE)


async def load_and_score(model: PreTrainedModel, ids: list[int]) -> list[float]:
    from crrl.learning.logprobs import score

    return score(model, ids)


async def test_attempts_at_one_task_differ(client: VllmClient) -> None:
    answers = await ask_all(client, [Request(f"o{i}", prompt(1), 32, seed=i) for i in range(4)])
    assert len({tuple(answer.ids) for answer in answers}) == 4


async def test_the_local_engine_says_the_same_greedily(client: VllmClient, engine: Any, policies: Any) -> None:
    version = await push(engine, policies)
    local = load_local(model_folder("tiny"), device="cpu")
    try:
        await local.push(ModuleWeights(policies[version]), version)
        for i in range(4):
            request = Request(f"g{i}", prompt(50 + i), 64, temperature=0.0, stop_ids=[STOP])
            mine, theirs = await ask(local, request), await ask(client, request)
            parted = next((n for n, (a, b) in enumerate(zip(mine.ids, theirs.ids, strict=False)) if a != b), None)
            if parted is None:
                assert mine.ids == theirs.ids
            else:  # only where two tokens were as likely
                assert abs(mine.logprobs[parted] - theirs.logprobs[parted]) < 10 * CLOSE
    finally:
        local.close()


async def test_pushes_between_and_during_16_sessions(engine: VllmEngine, client: VllmClient, policies: Any) -> None:
    """And with few, until some answers were under way."""
    for sessions in (16, 3, 3, 3, 3, 3):
        first = await push(engine, policies)

        async def pushing() -> None:
            await push(engine, policies)
            await push(engine, policies)

        answers = await meanwhile(client, pushing, sessions)
        assert {version for answer in answers for version in answer.versions} >= {first, first + 2}
        several = [answer for answer in answers if len(set(answer.versions)) > 1]
        for answer in [*several, *answers[:8]]:
            assert answer.finish == "length" and len(answer.ids) == answer.request.max_tokens
            assert answer.versions == sorted(answer.versions)
            for version in set(answer.versions):
                kept = [at for at, found in enumerate(answer.versions) if found == version]
                one = Answer(Request("", answer.request.prompt_ids + answer.ids[: kept[0]], 1))
                one.chunks = [type(answer.chunks[0])(*[[part[at] for at in kept] for part in three_of(answer)])]
                assert gap(one, policies[version]) < CLOSE, "a token is not its version's"
        if several and sessions < 16:
            return
    pytest.fail("no answer was under way")


def three_of(answer: Answer) -> tuple[list[int], list[float], list[int]]:
    return answer.ids, answer.logprobs, answer.versions


async def test_keys_and_values_of_old_weights_stop_the_run(
    engine: VllmEngine, policies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: the caches are not dropped."""
    await push(engine, policies)
    with monkeypatch.context() as patched:
        patched.setattr(engine.replicas[0], "drop_caches", lambda http: None)
        with pytest.raises(PushError, match=r"its log-prob is -\d.*, the trainer's -\d"):
            await push_and_prove(engine, changed(policies[0], 99), max(policies) + 1)
    await push(engine, policies)


async def test_a_push_that_does_not_fit_changes_nothing(engine: VllmEngine, client: VllmClient, policies: Any) -> None:
    version = await push(engine, policies)
    broken = changed(policies[0], 5)
    with torch.no_grad():
        next(iter(broken.parameters()))[0, 0] = float("nan")

    class Less:
        def tensors(self) -> Any:
            return (pair for pair in list(ModuleWeights(policies[0]).tensors())[:-2])

        def adapter(self) -> None:
            return None

    for source, says in ((ModuleWeights(broken), "NaN"), (Less(), "missing")):
        with pytest.raises(CrrlError, match=says):
            await engine.push(source, version + 1)
    assert (await client.info()).version == version
    assert gap(of(await ask(client, Request("n", prompt(9), 20)), version), policies[version]) < CLOSE


async def test_the_version_goes_on_without_a_push(engine: VllmEngine, client: VllmClient, policies: Any) -> None:
    version = await push(engine, policies)
    await engine.keep(version + 1)
    policies[version + 1] = policies[version]
    assert gap(of(await ask(client, Request("k", prompt(4), 20)), version + 1), policies[version]) < CLOSE


async def test_a_rest_freezes_and_refuses_nothing(engine: VllmEngine, client: VllmClient, policies: Any) -> None:
    answer = Answer(Request("r", prompt(6), 900, seed=3))
    stream = asyncio.create_task(ask(client, answer.request, answer))
    await until(lambda: bool(answer.ids), 60)
    with engine.resting():
        late = asyncio.create_task(ask(client, Request("late", prompt(7), 5)))
        await asyncio.sleep(0.5)
        seen = len(answer.ids)
        await asyncio.sleep(1.0)
        assert (len(answer.ids), late.done()) == (seen, False)
    await asyncio.gather(stream, late)
    assert answer.finish == "length"


async def test_closing_and_cancelling_free_the_slot(engine: VllmEngine, client: VllmClient) -> None:
    """Among few others, which a server has not sampled to their ends before it has sent what it sampled."""

    def running() -> int:
        with engine.replicas[0].server.http() as http:
            (line,) = re.findall(r"^vllm:num_requests_running.* (\S+)$", http.get("/metrics").text, re.M)
        return int(float(line))

    for attempt in range(30):
        answers = [Answer(Request(f"c{attempt}-{i}", prompt(i), 900, seed=i)) for i in range(3)]
        streams = [asyncio.create_task(ask(client, answer.request, answer)) for answer in answers]
        await until(lambda: all(answer.ids for answer in answers), 60)  # noqa: B023 (awaited here)
        await client.cancel(answers[0].request.id)
        await streams[0]
        while (left := await asyncio.to_thread(running)) > 2:
            assert not all(answer.finish for answer in answers), "it holds its slot until all others have ended"
        others = [answer.finish for answer in answers[1:]]
        for stream in streams:
            stream.cancel()  # which closes it
        await asyncio.gather(*streams, return_exceptions=True)
        assert [answer.finish for answer in answers[1:]] == others
        await until(lambda: running() == 0, 60)
        if (answers[0].finish, left, others) == ("cancelled", 2, [None, None]):
            assert len(answers[0].ids) < 900
            return
        print(attempt, left, [(answer.finish, len(answer.ids)) for answer in answers])
    pytest.fail("they had always ended by then")


async def test_a_full_queue_is_a_wait(client: VllmClient) -> None:
    answers = await ask_all(client, [Request(f"q{i}", prompt(i), 8, seed=i) for i in range(96)])
    assert {(answer.finish, len(answer.ids)) for answer in answers} == {("length", 8)}


async def test_prompts_that_do_not_fit(client: VllmClient) -> None:
    with pytest.raises(ContextLengthError):
        await ask(client, Request("long", [7] * 30_000, 5))
    whole = Request("edge", [7] * 1020, 50)
    assert len((await ask(client, whole)).ids) == 4
    with pytest.raises(ValueError, match="outside the vocabulary"):
        await ask(client, Request("foreign", [99_999], 5))


async def test_a_killed_server_comes_back_with_what_was_pushed(
    engine: VllmEngine, client: VllmClient, policies: Any
) -> None:
    version = await push(engine, policies)
    lost: list[Any] = []
    for attempt in range(5):  # a fast server may have sent all before it dies
        answers = [Answer(Request(f"x{attempt}-{i}", prompt(i), 900, seed=i)) for i in range(4)]
        streams = [asyncio.create_task(ask(client, answer.request, answer)) for answer in answers]
        await until(lambda: any(answer.ids for answer in answers), 60)  # noqa: B023 (awaited here)
        for process in processes(engine)[1:]:
            process.kill()
        ended = await asyncio.gather(*streams, return_exceptions=True)
        lost = [error for error in ended if isinstance(error, BaseException)]
        assert all(len(answer.ids) == 900 for answer in ended if isinstance(answer, Answer)), "cut, and not lost"
        if lost:
            break
        await ask(client, Request(f"again{attempt}", prompt(9), 2))  # it is up again
    assert lost and {type(error) for error in lost} == {EngineError}
    retried = await ask(client, Request("again", prompt(2), 30))  # waits for the new one
    assert gap(of(retried, version), policies[version]) < CLOSE


async def test_killed_during_a_push(engine: VllmEngine, client: VllmClient, policies: Any) -> None:
    """Between the pause and the end of the push: it starts again from the new weights, which are proved."""
    replica = engine.replicas[0]
    change = replica._change

    def killed(folder: Path, version: int) -> None:
        for process in processes(engine)[1:]:
            process.kill()
        change(folder, version)

    replica._change = killed  # type: ignore[method-assign]
    try:
        version = await push(engine, policies)
    finally:
        replica._change = change  # type: ignore[method-assign]
    assert gap(of(await ask(client, Request("after", prompt(3), 30)), version), policies[version]) < CLOSE


def test_it_ends_with_the_run_that_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import time
        from vllm_kit import processes, started, vllm_engine
        engine = started(vllm_engine())
        print("pids", *[process.pid for process in processes(engine)], flush=True)
        time.sleep(600)
    """)
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1] / "kits", stdout=-1, text=True
    )
    assert run.stdout is not None
    pids = next([int(pid) for pid in line.split()[1:]] for line in run.stdout if line.startswith("pids"))
    assert len(pids) >= 3
    run.send_signal(signal.SIGKILL)
    run.wait()
    until = time.monotonic() + 60
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < until, f"{left} outlive the run"
        time.sleep(0.2)


@pytest.mark.parametrize("transport", ["disk", "stream"])
async def test_a_server_of_somebody_else(engine: VllmEngine, policies: Any, transport: str) -> None:
    """The same server, over TCP: it gets the weights of whoever connects, and is not ended."""
    await push(engine, policies)
    async with forwarding(engine.replicas[0].server.socket) as url:
        foreign = vllm_engine(url=url, version=70, transport=transport)
        await asyncio.to_thread(started, foreign)
        try:
            client = connect(foreign.address)
            assert gap(of(await ask(client, Request("f", prompt(1), 20)), 70), policies[0]) < CLOSE
            other = await asyncio.to_thread(changed, policies[0], 71)
            assert await push_and_prove(foreign, other, 71, bound=CLOSE) < CLOSE
            assert gap(of(await ask(client, Request("g", prompt(2), 20)), 71), other) < CLOSE
            await client.close()
        finally:
            await asyncio.to_thread(foreign.close)
        with pytest.raises(UsageError, match="another tokenizer"):
            await asyncio.to_thread(started, vllm_engine(model_with_another_tokenizer(), url=url))
    assert engine.replicas[0].server.alive
    await push(engine, policies)


def model_with_another_tokenizer() -> Path:
    folder = Path(tempfile.mkdtemp()) / "model"
    shutil.copytree(model_folder("tiny"), folder)
    written = json.loads((folder / "tokenizer.json").read_text())
    written["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(written))
    return folder


def events(lines: list[str]) -> list[Any]:
    """The fields of the first and the last, and of what they say of the answer. Values differ from time to time."""
    found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith(("data: {", "{"))]
    return [(sorted(event), sorted((event.get("choices") or [{}])[0])) for event in (found[0], found[-1])]


async def test_recordings_are_what_the_server_says(engine: VllmEngine, policies: Any) -> None:
    """For test_vllm_recorded.py; `CRRL_RECORD=1` writes them."""
    said: dict[str, Any] = {}

    async def record(name: str, path: str, body: Any, *, push_after: int = 0) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(engine.replicas[0].server.socket))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://vllm", timeout=None) as http,
            http.stream("POST" if body else "GET", path, json=body) as response,
        ):
            lines = []
            async for line in response.aiter_lines():
                lines.append(line)
                if len(lines) == push_after:
                    await engine.push(ModuleWeights(policies[0]), max(policies) + 1)
            kind = response.headers["content-type"]
            said[name] = {"path": path, "body": body, "status": response.status_code, "type": kind, "lines": lines}

    def generation(request: Request) -> dict[str, Any]:
        return {"model": MODEL, **protocol.body(request, 1024, seeded=False)}

    await push(engine, policies)
    for name, request in RECORDED.items():
        await record(name, protocol.PATH, generation(request), push_after=3 if name == "pushed" else 0)
    policies[max(policies) + 1] = policies[0]
    await record("score", protocol.PATH, {"model": MODEL, **protocol.score_body(prompt(4, 12))})
    await record("version", "/weight_info", None)
    length = generation(RECORDED["length"])
    await record("too-long", protocol.PATH, length | {"token_ids": [7] * 1100})
    await record("unknown-model", protocol.PATH, length | {"model": "other"})
    with engine.replicas[0].server.http() as http:
        json_of(http.post("/update_weight_version", json={"new_version": "default"}))
    await record("unpushed", protocol.PATH, length)
    await record("unpushed-version", "/weight_info", None)
    await engine.keep(max(policies))
    if os.environ.get("CRRL_RECORD"):
        RECORDINGS.write_text(json.dumps(said, indent=0) + "\n")
    recorded = json.loads(RECORDINGS.read_text())
    for name, exchange in said.items():
        assert exchange["status"] == recorded[name]["status"], name
        assert events(exchange["lines"]) == events(recorded[name]["lines"]), name


async def test_a_prompt_of_100_000_characters(tmp_path: Path) -> None:
    """Of the shipped policy, told that it has so many positions. It is prefilled in parts."""
    folder = tmp_path / "long"
    shutil.copytree(model_folder("tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 16}))
    ids = load_tokenizer(folder).encode("    return add(values[index], other)\n" * 2800)[: (1 << 16) - 16]
    long = await asyncio.to_thread(started, vllm_engine(folder, memory_gb=2))
    try:
        client = connect(long.address)
        answer = await ask(client, Request("100k", ids, 8))
        assert gap(answer, load_model(folder)) < CLOSE
        await client.close()
    finally:
        await asyncio.to_thread(long.close)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"memory_gb": 900}, "memory"), ({"dtype": "float32", "environment": "/nowhere"}, "make vllm")],
)
def test_faults_at_the_start_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(CrrlError, match=says):
        started(vllm_engine(**settings)).close()
