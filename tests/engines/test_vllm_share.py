"""`engine.share=true`: the order in which a server on the trainer's GPU sleeps, wakes, and gets weights. On a CPU vLLM
does not sleep, so a server that notes what it is asked stands in for it, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crrl.conf.load import load_recipe
from crrl.engines.vllm.foreign import ForeignServer
from crrl.engines.vllm.replica import SAMPLED, Replica
from crrl.engines.vllm.transports import Disk
from crrl.errors import CrrlError, UsageError
from crrl.learning.memory import VLLM_ASLEEP
from crrl.learning.plan import Room, make_plan, remedy
from crrl.models import model_folder

PROBE = [5, 6, 7]
CONFIG = {"logprobs_mode": "processed_logprobs", "dtype": "torch.float32", "max_model_len": 1024}


class Asleep:
    """Answers as vLLM does, but for what it computes; a log-prob is `value`. `asked`: paths, in order."""

    def __init__(self) -> None:
        self.value, self.asked, self.refused = -1.0, list[str](), set[str]()
        self.folders: list[str] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                path = self.path.partition("?")[0]
                text = stand_in.said(path, self.path, body)
                self.send_response(500 if path in stand_in.refused else 200)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def said(self, path: str, whole: str, body: dict[str, Any]) -> str:
        if path in self.refused:
            return '{"error": "no"}'
        if path == "/collective_rpc" and body["method"] == "crrl_load":
            self.folders.append(Path(body["kwargs"]["folder"]).name)
        if path not in ("/health", "/metrics", "/weight_info", "/v1/models", "/server_info", "/tokenize"):
            self.asked.append(whole if path == "/sleep" else f"{path} {body.get('method', '')}".strip())
        choice = {
            "token_ids": [1] * SAMPLED,
            "logprobs": {"content": [{"token_id": 1, "logprob": -2.0}] * SAMPLED},
            "weight_versions": [{"version": "3", "start": 0, "end": SAMPLED}],
            "finish_reason": "length",
        }
        answer = {
            "/v1/models": {"data": [{"id": "m"}]},
            "/server_info": {"vllm_config": {"model_config": CONFIG}},
            "/tokenize": {"tokens": [1]},
            "/weight_info": {"weight_version": "3"},
            "/reset_prefix_cache": {"success": True},
            "/inference/v1/generate": {
                "choices": [choice],
                "prompt_logprobs": [None, *({str(id): {"logprob": self.value}} for id in PROBE[1:])],
            },
        }.get(path, {})
        return f"data: {json.dumps(answer)}\n\n" if body.get("stream") else json.dumps(answer)


@pytest.fixture
def asleep() -> Iterator[Asleep]:
    made = Asleep()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def replica(asleep: Asleep) -> Iterator[Replica]:
    def lost(error: Exception) -> CrrlError:
        given_up.append(error)
        made.end(error if isinstance(error, CrrlError) else None)
        return made._failure or CrrlError("ended")

    given_up: list[Exception] = []
    made = Replica(
        ForeignServer(asleep.url, "float32", 1024, lambda text: [1]),
        Disk(model_folder("tiny"), "float32"),
        Path("/served"),
        3,
        context=1024,
        probe_ids=PROBE,
        share=True,
        note=lambda said: None,
        give_up=lost,
    )
    made.start()
    asleep.asked.clear()
    yield made
    made.close()


SCORE = "/inference/v1/generate"


def test_it_sleeps_while_the_trainer_computes_and_then_gets_weights(asleep: Asleep, replica: Replica) -> None:
    replica.rest()
    assert asleep.asked == [SCORE, "/sleep?level=1&mode=keep"], "level 2 would drop the weights, abort the generations"
    replica.go_on()
    assert asleep.asked[2:] == ["/wake_up", SCORE], "it is woken, and proved to have its weights"
    replica.push(Path("/pushed"), 4)
    assert asleep.asked[4:] == [
        "/pause",
        "/collective_rpc crrl_load",
        "/update_weight_version",
        "/reset_prefix_cache",
        "/resume",
        SCORE,  # the probe, and what is sampled behind it
        SCORE,
    ]
    assert asleep.folders[-1] == "pushed"


def test_rests_within_rests_sleep_once(asleep: Asleep, replica: Replica) -> None:
    replica.rest()
    replica.rest()
    replica.go_on()
    assert "/wake_up" not in asleep.asked
    replica.go_on()
    assert [path.partition("?")[0] for path in asleep.asked].count("/sleep") == 1
    assert asleep.asked.count("/wake_up") == 1


def test_one_that_wakes_up_with_other_weights_ends(asleep: Asleep, replica: Replica) -> None:
    replica.rest()
    asleep.value = -1.5
    with pytest.raises(CrrlError, match="woke up with other weights"):
        replica.go_on()
    with pytest.raises(CrrlError, match="other weights"):
        replica.push(Path("/pushed"), 4)


def test_one_that_does_not_sleep_ends(asleep: Asleep, replica: Replica) -> None:
    """The trainer would run out of memory beside it."""
    asleep.refused.add("/sleep")
    with pytest.raises(CrrlError, match="/sleep"):
        replica.rest()


def test_the_plan_of_memory_has_both_on_the_card() -> None:
    """While one computes, the other has what it keeps; what is proposed fits."""
    model = ["engine=vllm", "engine.share=true", "engine.memory_share=0.95"]
    config = load_recipe("quickstart", model)
    card = Room.of_card(8)
    made = make_plan(config, card)
    assert made.memory.awake == int(0.95 * card.bytes) - VLLM_ASLEEP
    assert made.needed > card.bytes and not made.fits
    words = remedy(config, card).removeprefix("Write ").split()
    assert any(word.startswith("engine.memory_share=") for word in words)
    assert make_plan(load_recipe("quickstart", [*model, *words]), card).fits
    alone = make_plan(load_recipe("quickstart", ["engine=vllm"]), card)
    assert alone.memory.awake == 0 and alone.fits


def test_a_cpu_has_no_card_to_share() -> None:
    from vllm_kit import vllm_engine

    with pytest.raises(UsageError, match="on a CPU vLLM does not sleep"):
        vllm_engine(share=True, environment="/none")
