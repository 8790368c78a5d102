"""A vLLM server that somebody else runs, at `engine.url`: checked, given this run's weights, and never ended.

Invariant 6: a server whose log-probs, versions, context or tokens are not those of this run is refused before anything
is asked of it, with the flag that it lacks. If it goes away and comes back, it gets the weights again; until then it
serves none that a run has pushed, and whatever it samples is refused.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from crrl.engines import EngineError
from crrl.engines.api import Request
from crrl.engines.vllm import protocol
from crrl.engines.vllm.server import HEALTH_S, PLUGIN, answer
from crrl.errors import CrrlError, UsageError

START_S = 600.0
"""How long one that is gone is waited for."""
TEXT = 'def f(x):\n\treturn [x, "ä→😀"]  # 0123\r\n\n    <tool_call>{"a": 1e-5}</tool_call>'
COMMAND = (
    f"PYTHONPATH={PLUGIN} VLLM_PLUGINS=crrl VLLM_SERVER_DEV_MODE=1 vllm serve MODEL "
    "--worker-extension-cls crrl_vllm.Worker --enable-scale-out --logprobs-mode processed_logprobs "
    "--generation-config vllm"
)
"""How it is started; docs/engines.md has it, too."""


class ForeignServer:
    """Has the methods of `server.VllmServer`.

    Args:
        url: http://HOST:PORT. dtype, context: that it must have. encode: the run's tokenizer.
    """

    pid = None
    log = "its own"

    def __init__(self, url: str, dtype: str, context: int, encode: Callable[[str], list[int]]) -> None:
        self._url, self._dtype, self._context, self._encode = url.rstrip("/"), dtype, context, encode
        self.model = ""

    def start(self, model: Path, note: Callable[[str], None]) -> None:
        """Returns when it answers, and is checked. Raises CrrlError, UsageError."""
        until, told = time.monotonic() + (START_S if self.model else 0.0), False
        while not self.healthy():
            if time.monotonic() > until:
                raise CrrlError(f"No vLLM server answers at engine.url={self._url}.", f"Start it: {COMMAND}")
            if not told:
                note(f"The vLLM server at {self._url} does not answer. It is waited for")
                told = True
            time.sleep(1.0)
        with self.http() as http:
            self.model = answer(http.get("/v1/models"))["data"][0]["id"]
            self._check(http)

    def _check(self, http: httpx.Client) -> None:
        settings = self._asked(http.get("/server_info", params={"config_format": "json"}), "VLLM_SERVER_DEV_MODE=1")
        model: dict[str, Any] = settings["vllm_config"]["model_config"]
        if (mode := model["logprobs_mode"]) != "processed_logprobs":
            raise self._refused(f"gives {mode}", "--logprobs-mode processed_logprobs")
        if not str(model["dtype"]).endswith(self._dtype):
            raise self._refused(f"computes in {model['dtype']}", f"--dtype {self._dtype}")
        if model["max_model_len"] < self._context:
            raise self._refused(f"has {model['max_model_len']} tokens of context", f"--max-model-len {self._context}")
        asked = {"model": self.model, "prompt": TEXT, "add_special_tokens": False}
        if self._asked(http.post("/tokenize", json=asked), "its tokenizer")["tokens"] != self._encode(TEXT):
            raise self._refused("has another tokenizer", "the model whose tokenizer this run has")
        self._asked(
            http.post("/collective_rpc", json={"method": "crrl_there"}), "--worker-extension-cls crrl_vllm.Worker"
        )
        body = protocol.body(Request("crrl-check", [1, 2], 2, temperature=0.0), self._context, seeded=False)
        with http.stream("POST", protocol.PATH, json={"model": self.model, **body}) as response:
            if response.status_code != 200:
                raise self._refused("does not take token ids", "--enable-scale-out")
            first = next(line for line in response.iter_lines() if line.startswith("data:"))
        try:
            protocol.Stream("check").read(first)
        except EngineError as error:
            if "plug-in" in str(error):
                raise self._refused("runs without crrl's plug-in", f"PYTHONPATH={PLUGIN} VLLM_PLUGINS=crrl") from None
            # weights that no run has pushed: this one will

    def _asked(self, response: httpx.Response, lacks: str) -> Any:
        if response.status_code != 200:
            raise self._refused(f"answers {response.status_code} to {response.request.url.path}", lacks)
        return response.json()

    def _refused(self, what: str, needs: str) -> UsageError:
        return UsageError(
            f"The vLLM server at engine.url={self._url} {what}.", f"Start it with {needs}. In full: {COMMAND}"
        )

    def show(self) -> None:
        """It is where it is."""

    @property
    def alive(self) -> bool:
        return self.healthy()

    def http(self, *, hidden: bool = False) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=None, trust_env=False, verify=_certificates())

    def healthy(self) -> bool:
        try:
            with self.http() as http:
                return http.get("/health", timeout=HEALTH_S).status_code == 200
        except httpx.TimeoutException:
            return True
        except httpx.HTTPError:
            return False

    def stop(self, *, at_once: bool = False) -> None:
        """What it serves is no policy of ours any more; it goes on."""
        with contextlib.suppress(httpx.HTTPError, CrrlError), self.http() as http:
            answer(http.post("/update_weight_version", json={"new_version": "none"}, timeout=HEALTH_S))
            answer(http.post("/resume", timeout=HEALTH_S))


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Loaded once: that takes 24 ms of CPU, and every health check makes a client."""
    return httpx.create_ssl_context(trust_env=False)
