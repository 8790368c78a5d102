"""A vLLM server of somebody else is refused where it would sample for other log-probs, versions or tokens. The real one
is asked in test_vllm_server.py; here one thing after the other is wrong with what it says."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crrl.engines.vllm.foreign import ForeignServer
from crrl.errors import CrrlError, UsageError

CHOICE = {
    "index": 0,
    "token_ids": [7],
    "logprobs": {"content": [{"token_id": 7, "logprob": -1.0}]},
    "weight_versions": [{"version": "default", "start": 0, "end": 1}],
}
RIGHT: dict[str, Any] = {
    "/health": "",
    "/v1/models": {"data": [{"id": "Qwen/Some"}]},
    "/server_info": {
        "vllm_config": {
            "model_config": {"logprobs_mode": "processed_logprobs", "dtype": "torch.float32", "max_model_len": 1024}
        }
    },
    "/tokenize": {"tokens": [1, 2, 3]},
    "/collective_rpc": {"results": ["yes"]},
    "/inference/v1/generate": {"choices": [CHOICE]},
}


class Said:
    """A server that gives one answer for each path; None: 404."""

    def __init__(self) -> None:
        self.answers = answers = copy.deepcopy(RIGHT)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                said = answers[self.path.partition("?")[0]]
                text = f"data: {json.dumps(said)}\n\n" if "generate" in self.path else json.dumps(said)
                self.send_response(404 if said is None else 200)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def asked(self) -> ForeignServer:
        server = ForeignServer(self.url, "float32", 1024, lambda text: [1, 2, 3])
        server.start(Path(), lambda said: None)
        return server


@pytest.fixture
def said() -> Iterator[Said]:
    made = Said()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_one_that_is_right(said: Said) -> None:
    assert said.asked().model == "Qwen/Some"


@pytest.mark.parametrize(
    ("path", "keys", "value", "says"),
    [
        ("/server_info", (), None, "VLLM_SERVER_DEV_MODE=1"),
        ("/server_info", ("vllm_config", "model_config", "logprobs_mode"), "raw_logprobs", "processed_logprobs"),
        ("/server_info", ("vllm_config", "model_config", "dtype"), "torch.bfloat16", "--dtype float32"),
        ("/server_info", ("vllm_config", "model_config", "max_model_len"), 512, "--max-model-len 1024"),
        ("/tokenize", ("tokens",), [1, 2], "another tokenizer"),
        ("/collective_rpc", (), None, "--worker-extension-cls"),
        ("/inference/v1/generate", (), None, "--enable-scale-out"),
        ("/inference/v1/generate", ("choices", 0, "weight_versions"), None, "VLLM_PLUGINS=crrl"),
        ("/health", (), None, "No vLLM server answers"),
    ],
)
def test_what_is_refused(said: Said, path: str, keys: tuple[Any, ...], value: Any, says: str) -> None:
    if keys:
        place = said.answers[path]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    else:
        said.answers[path] = value
    with pytest.raises(CrrlError, match=says) as caught:
        said.asked()
    assert "vllm serve MODEL" in caught.value.remedy


def test_nobody_is_there(said: Said) -> None:
    said.server.shutdown()
    said.server.server_close()
    with pytest.raises(CrrlError, match="No vLLM server answers"):
        said.asked()


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "ftp://h", "http://h:1/v1", "unix:/s"])
def test_what_is_no_address(url: str) -> None:
    from vllm_kit import vllm_engine

    with pytest.raises(UsageError, match=r"engine\.url="):
        vllm_engine(url=url)
