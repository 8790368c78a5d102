"""The run's side of vLLM: an `Engine` with an address of its own (`api.Served`), and its `Weights`.

Invariant 7: a push arrives whole, or ends the server. Weights are read between two decode steps, while the generations
under way freeze; then comes the version, and then all keys and values are dropped: the next token comes from the new
weights alone, and says so. The probe reads its beginning from the prefix cache where that still has it: keys and values
of other weights would show, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from crrl.engines import EngineError
from crrl.engines import push as pushes
from crrl.engines.adapter import base_folder, is_adapter
from crrl.engines.api import Chunk, EngineInfo, Probe, Request, WeightSource
from crrl.engines.device import device_of, dtype_of
from crrl.engines.load import load_model, load_tokenizer, tokenizer_hash
from crrl.engines.vllm import protocol, weights
from crrl.engines.vllm.client import Server, VllmClient
from crrl.engines.vllm.foreign import ForeignServer
from crrl.engines.vllm.install import python_of
from crrl.engines.vllm.server import SOCKET, VllmServer, Wanted, answer
from crrl.errors import CrrlError, UsageError

PROBE_LENGTH = 320
"""More than two blocks of vLLM's prefix cache, which holds whole blocks only (of 128 tokens on a CPU)."""
SAMPLED = 8
"""Tokens behind the probe, sampled greedily by the way that generations go."""
WATCH_S = 1.0
SILENT = 2  # looks in a row at which it was dead
PAUSE = {"mode": "keep", "clear_cache": "false"}
"""Generations freeze, and keep what they have: a push drops it by itself."""
RESTARTS = 3  # without a push in between


class VllmEngine:
    """Made by `engines.make`; `start` starts the server.

    Args:
        model: a model folder, or an adapter's (`base`: where its base is now).
        context: most tokens of prompt and generation together; None: the model's own.
        memory_gb: for keys and values, on a CPU. memory_share: of a GPU, for all that the server has.
        environment: folder of vLLM's environment; install: make it if it is not there.
        url: of a server that somebody else runs; "": it starts one. log: where that writes; "": a temporary file.
    """

    def __init__(
        self,
        model: Path,
        *,
        context: int | None,
        max_batch: int,
        device: str,
        dtype: str,
        version: int,
        memory_gb: int,
        memory_share: float,
        tensor_parallel: int,
        install: bool,
        environment: str,
        url: str = "",
        log: str = "",
        base: str = "",
    ) -> None:
        self._where = device_of(device)
        dtype_of(dtype, self._where, "engine.dtype")
        if self._where.type == "cpu" and tensor_parallel > 1:
            raise UsageError(f"engine.tensor_parallel={tensor_parallel} is for GPUs.", "Leave it out.")
        if url and not re.fullmatch(r"https?://[^/?#]+/?", url):
            raise UsageError(f"engine.url={url} is not http://HOST:PORT.", "Leave it out, and the run starts a server.")
        self._dtype, self._version, self._model, self._base = dtype, version, Path(model), base
        tokenizer = load_tokenizer(model, base)
        self._folder = Path(tempfile.mkdtemp(prefix="crrl-vllm-"))
        self._closing = contextlib.ExitStack()
        self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            config = _text_config(base_folder(self._model, base) if is_adapter(self._model) else self._model)
            longest = int(config.get("max_position_embeddings") or 0)
            if context is not None and longest and context > longest:
                raise CrrlError(
                    f"engine.context={context}, but the model in {model} was made for {longest} positions.",
                    f"Use engine.context={longest} or less.",
                )
            if not (context or longest):
                raise CrrlError(f"The model in {model} does not say its context length.", "Set engine.context.")
            limit = context or longest
            self._log = Path(log) if log else self._folder / "vllm.log"
            sizes = limit, int(config["vocab_size"])
            where, seeds = url or str(self._folder / SOCKET), not url and self._where.type != "cpu"
            self._told = Server(where, *sizes, tokenizer_hash(tokenizer), seeds=seeds)
            wanted = Wanted(self._where, dtype, limit, max_batch, memory_gb, memory_share, tensor_parallel)

            def server(note: Callable[[str], None]) -> VllmServer | ForeignServer:
                if url:
                    return ForeignServer(
                        url, dtype, limit, lambda text: tokenizer.encode(text, add_special_tokens=False)
                    )
                python = python_of(Path(environment), cuda=self._where.type == "cuda", install=install, note=note)
                return VllmServer(python, wanted.arguments(), wanted.variables(), self._folder, self._log)

            self._make_server = server
        except BaseException:
            self._closing.close()
            raise
        self.probe_ids = pushes.probe_ids(self._told.vocab_size, min(PROBE_LENGTH, max(2, limit - SAMPLED - 1)))
        self.tokens = self._counted = 0
        self.busy_s = 0.0
        self._client: tuple[asyncio.AbstractEventLoop, VllmClient] | None = None
        self._up = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # whoever starts the server, or changes what it serves
        self._failure: CrrlError | None = None
        self._restarts = 0
        self._rests = 0

    @property
    def address(self) -> str:
        return self._told.address

    # The server -------------------------------------------------------------------------------------------------

    def start(self, note: Callable[[str], None], failed: Callable[[CrrlError], None]) -> None:
        """Returns when the server serves the model. `failed`: told later if the server is lost for good. Raises
        UsageError, CrrlError."""
        self._note, self._failed = note, failed
        self._server = self._make_server(note)
        if is_adapter(self._model):
            merged = self._folder / "merged"
            load_model(self._model, dtype=getattr(torch, self._dtype), base=self._base).save_pretrained(merged)
            self._model = merged
        self._serves = self._model
        self._shapes = weights.shapes_in(self._model)
        self._closing.callback(self._server.stop)
        self._serve()
        watching = threading.Thread(target=self._watch, name="crrl-vllm", daemon=True)
        watching.start()
        self._closing.callback(watching.join)
        self._closing.callback(self._server.stop)  # it may be starting again, and is waited for
        self._closing.callback(self._ended.set)

    def _serve(self) -> None:
        """Start the server on what is to be served, and let itself be found. Raises CrrlError."""
        self._server.start(self._serves, self._note)
        if isinstance(self._server, ForeignServer):
            self._told = dataclasses.replace(self._told, model=self._server.model)
            self._change(self._serves, self._version)
        with self._server.http(hidden=True) as http:
            answer(http.post("/update_weight_version", json={"new_version": str(self._version)}))
            _require_ours(http)
        self._server.show()
        with self._server.http() as http:
            self._go_on(http)  # keys and values that the next push must drop
        self._up.set()

    def _watch(self) -> None:
        last, silent = time.monotonic(), 0
        while not self._ended.wait(WATCH_S):
            now = time.monotonic()
            silent = 0 if self._server.healthy() else silent + 1
            if silent > SILENT or not self._up.is_set():
                self._again()
                silent = 0
            elif not silent:
                self._count(now - last)
            last = now

    def _again(self) -> None:
        """The server has died: start it on the weights it had last. Requests wait meanwhile."""
        self._up.clear()
        self._server.stop(at_once=True)  # ends what still waits for it, too: a push
        self._restarts += 1
        try:
            with self._lock:
                if self._ended.is_set():
                    return
                if self._restarts > RESTARTS:
                    raise CrrlError(f"The vLLM server died {RESTARTS + 1} times.", f"See its log: {self._log}")
                self._note(f"The vLLM server died. It is started again, with the weights of version {self._version}")
                self._serve()
        except Exception as error:  # whatever it is: nobody else would notice, and all would wait for ever
            if not self._ended.is_set():  # closed meanwhile
                self._failed(self._give_up(error))

    def _give_up(self, error: Exception) -> CrrlError:
        self._failure = error if isinstance(error, CrrlError) else CrrlError(f"The vLLM server is lost: {error!r}")
        self._ended.set()
        self._server.stop()
        self._up.set()
        return self._failure

    def _count(self, seconds: float) -> None:
        with contextlib.suppress(httpx.HTTPError, CrrlError, ValueError), self._server.http() as http:
            told = dict(_metrics(http.get("/metrics", timeout=WATCH_S * 10).text))
            counted = int(told.get("vllm:generation_tokens_total", 0))
            self.tokens += counted - (self._counted if counted >= self._counted else 0)  # a new server counts anew
            self._counted = counted
            self.busy_s += seconds if told.get("vllm:num_requests_running") else 0.0

    def _ready(self) -> None:
        """Raises CrrlError: there is no server any more."""
        self._up.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def pid(self) -> int | None:
        """Of the process that keeps the server."""
        return self._server.pid

    def close(self) -> None:
        self._closing.close()

    # What whoever samples sees ------------------------------------------------------------------------------------

    def _here(self) -> VllmClient:
        """One for each event loop: the run has several, one after the other."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            self._client = loop, VllmClient(self.address.partition(":")[2])
        return self._client[1]

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        async with contextlib.aclosing(self._here().generate(request)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def score(self, ids: list[int]) -> list[float]:
        return await self._here().score(ids)

    async def cancel(self, id: str) -> None:
        await self._here().cancel(id)

    async def info(self) -> EngineInfo:
        return await self._here().info()

    # What the trainer sees ----------------------------------------------------------------------------------------

    async def push(self, source: WeightSource, version: int) -> Probe:
        return await asyncio.to_thread(self._push, source, version)

    def _push(self, source: WeightSource, version: int) -> Probe:
        target = self._folder / f"version-{version}"
        weights.write(source, self._model, self._shapes, target, self._dtype)
        self._ready()
        with self._lock:
            old, self._serves, self._version = self._serves, target, version
            try:
                self._change(target, version)
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):  # some weights may be new, others old: there is no policy left to serve
                    self._give_up(error)
        while True:
            self._ready()
            try:
                with self._server.http() as http:
                    probe = self._probe(http)
                break
            except EngineError as error:
                raise CrrlError(f"The push of version {version} cannot be proved: {error.detail}", "Resume.") from None
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):
                    raise
        self._restarts = 0
        if old != self._model and old != target:
            shutil.rmtree(old, ignore_errors=True)
        return probe

    def _died(self, error: Exception) -> bool:
        """Whether the server is dead or dying, whatever it answered. It is then started again, from what it is to
        serve."""
        if isinstance(error, httpx.HTTPError) or not self._server.healthy():
            self._up.clear()
            self._server.stop(at_once=True)
            return True
        return False

    def _change(self, folder: Path, version: int) -> None:
        """Raises CrrlError, httpx.HTTPError: it may be half done."""
        with self._server.http() as http:
            answer(http.post("/pause", params=PAUSE))
            answer(http.post("/collective_rpc", json={"method": "crrl_load", "kwargs": {"folder": str(folder)}}))
            answer(http.post("/update_weight_version", json={"new_version": str(version)}))
            self._drop_caches(http)
            if not self._rests:
                answer(http.post("/resume"))

    def _drop_caches(self, http: httpx.Client) -> None:
        dropped = answer(http.post("/reset_prefix_cache", params={"reset_running_requests": "true"}))
        if not dropped["success"]:
            raise CrrlError("vLLM keeps keys and values of old weights.", "See its log.")

    def _probe(self, http: httpx.Client) -> Probe:
        """Scores the probe by a prefill, and goes on from it as generations do: from the prefix cache."""
        version = protocol.version_of(answer(http.get("/weight_info"))["weight_version"])
        held = self._rests
        if held:
            answer(http.post("/resume"))
        went_on = self._go_on(http)
        scored = protocol.scores(
            answer(http.post(protocol.PATH, json={"model": self._told.model, **protocol.score_body(self.probe_ids)})),
            self.probe_ids,
        )
        if held:
            answer(http.post("/pause", params=PAUSE))
        return Probe(version, [*self.probe_ids, *went_on.ids], [*scored, *went_on.logprobs])

    def _go_on(self, http: httpx.Client) -> Chunk:
        """A few tokens behind the probe, greedily; keeps the probe in the prefix cache until the next push."""
        request = Request("probe", self.probe_ids, SAMPLED, temperature=0.0)
        body = protocol.body(request, self._told.context, seeded=False) | {"stream": False, "model": self._told.model}
        del body["request_id"]
        return protocol.whole(answer(http.post(protocol.PATH, json=body)))

    async def keep(self, version: int) -> None:
        await asyncio.to_thread(self._keep, version)

    def _keep(self, version: int) -> None:
        self._ready()
        with self._lock:
            self._version = version
            try:
                with self._server.http() as http:
                    answer(http.post("/update_weight_version", json={"new_version": str(version)}))
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):
                    raise

    def forget(self, scope: str) -> None:
        """vLLM's log-probs depend on the batch in their last bits anyway: nothing is promised that this would keep."""

    @contextmanager
    def resting(self) -> Iterator[None]:
        self._ready()
        self._hold(+1)
        try:
            yield
        finally:
            self._hold(-1)

    def _hold(self, more: int) -> None:
        with self._lock:
            self._rests += more
            with contextlib.suppress(httpx.HTTPError, CrrlError), self._server.http() as http:
                # One that is dying does not matter; a new one does not rest.
                answer(http.post("/pause", params=PAUSE) if self._rests else http.post("/resume"))


def _require_ours(http: httpx.Client) -> None:
    """Raises UsageError: the server's log-probs, or what it says of versions, are not those that training needs."""
    told = answer(http.get("/server_info", params={"config_format": "json"}))
    mode = told["vllm_config"]["model_config"].get("logprobs_mode")
    if mode != "processed_logprobs":
        raise UsageError(f"The vLLM server gives {mode}.", "Start it with --logprobs-mode processed_logprobs.")


def _metrics(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if line.startswith(("vllm:generation_tokens_total", "vllm:num_requests_running")):
            name, _, value = line.rpartition(" ")
            yield name.partition("{")[0], float(value)


def _text_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CrrlError(f"{folder} is not a Hugging Face model folder: {error}", "Give one with config.json.") from None
    return config | config.get("text_config", {})
