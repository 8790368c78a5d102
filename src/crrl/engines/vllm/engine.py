"""The run's side of vLLM: an `Engine` with an address of its own (`api.Served`), and its `Weights`.

It has one server or several (`replica.Replica`), which serve the same policy: one push goes to all of them, and each is
proved. Invariant 7: a push that one of them takes half-way ends them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from crrl.engines import push as pushes
from crrl.engines.adapter import base_folder, is_adapter
from crrl.engines.api import Chunk, EngineInfo, Probe, Request, WeightSource
from crrl.engines.device import device_of, dtype_of
from crrl.engines.load import context_of, load_model, load_tokenizer, tokenizer_hash
from crrl.engines.vllm import transports
from crrl.engines.vllm.client import Serving, VllmClient
from crrl.engines.vllm.foreign import ForeignServer
from crrl.engines.vllm.install import python_of
from crrl.engines.vllm.replica import SAMPLED, Replica
from crrl.engines.vllm.server import VllmServer, Wanted, private_folder, socket_in
from crrl.errors import CrrlError, UsageError

PROBE_LENGTH = 320
"""More than two blocks of vLLM's prefix cache, which holds whole blocks only (of 128 tokens on a CPU)."""


Given = TypeVar("Given")


class VllmEngine:
    """Made by `engines.make`; `start` starts the servers.

    Args:
        model: a model folder, or an adapter's (`base`: where its base is now).
        context: most tokens of prompt and generation together; None: the model's own.
        memory_gb: for keys and values, on a CPU. memory_share: of a GPU, for all that a server has.
        environment: folder of vLLM's environment; install: make it if it is not there.
        url: of servers that somebody else runs, with commas between; "": it starts `replicas` of its own.
        transport: how pushes get there (`transports`). rank: of the adapter that will be pushed; 0: none will.
        share: while it rests, its GPU is the trainer's. log: where its servers write; "": a temporary file.
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
        replicas: int = 1,
        transport: str = "disk",
        rank: int = 0,
        share: bool = False,
        log: str = "",
        base: str = "",
    ) -> None:
        self._where = device_of(device)
        dtype_of(dtype, self._where, "engine.dtype")
        if self._where.type == "cpu" and tensor_parallel > 1:
            raise UsageError(f"engine.tensor_parallel={tensor_parallel} is for GPUs.", "Leave it out.")
        if self._where.type == "cpu" and share:
            raise UsageError(
                "engine.share=true is for a GPU: on a CPU vLLM does not sleep, and what it has stays its own.",
                "Leave it out.",
            )
        urls = _urls(url)
        self._dtype, self._version, self._model, self._base = dtype, version, Path(model), base
        self._transport_name, self._share = transport, share
        trained_on = self._model if is_adapter(self._model) else None
        self._rank = max(rank, transports.rank_in(trained_on) if trained_on else 0)
        if transport == "adapter" and not self._rank:
            raise UsageError("engine.transport=adapter: there is no adapter.", "Add adapter=lora, or leave it out.")
        tokenizer = load_tokenizer(model, base)
        self._folder = private_folder()
        self._closing = contextlib.ExitStack()
        self._closing.callback(shutil.rmtree, self._folder, ignore_errors=True)
        try:
            self._base_folder = base_folder(self._model, base) if trained_on else self._model
            config = _text_config(self._base_folder)
            limit = context_of(int(config.get("max_position_embeddings") or 0), context, model)
            sizes = limit, int(config["vocab_size"])
            where = urls or tuple(str(socket_in(self._folder, number)) for number in range(replicas))
            seeds = not urls and self._where.type != "cpu"
            self._told = Serving(where, *sizes, tokenizer_hash(tokenizer), seeds=seeds)
            logs = Path(log) if log else self._folder / "vllm.log"

            def servers(
                transport: transports.Transport, note: Callable[[str], None]
            ) -> list[VllmServer | ForeignServer]:
                if urls:
                    encode = tokenizer.encode
                    return [
                        ForeignServer(url, dtype, limit, lambda text: encode(text, add_special_tokens=False))
                        for url in urls
                    ]
                wanted = Wanted(
                    self._where, dtype, limit, max_batch, memory_gb, memory_share, tensor_parallel, share, transport
                )
                python = python_of(Path(environment), cuda=self._where.type == "cuda", install=install, note=note)
                return [
                    VllmServer(
                        python,
                        wanted.arguments(),
                        # Outside of the private folder: the next start is faster for it.
                        wanted.variables(number) | {"TORCHINDUCTOR_CACHE_DIR": str(Path(environment) / "compiled")},
                        self._folder,
                        logs.with_stem(f"{logs.stem}-{number}") if number else logs,
                        number,
                    )
                    for number in range(replicas)
                ]

            self._make_servers = servers
        except BaseException:
            self._closing.close()
            raise
        self.probe_ids = pushes.probe_ids(self._told.vocab_size, min(PROBE_LENGTH, max(2, limit - SAMPLED - 1)))
        self.replicas: list[Replica] = []
        self._client: tuple[asyncio.AbstractEventLoop, VllmClient] | None = None
        self._failure: CrrlError | None = None

    @property
    def address(self) -> str:
        return self._told.address

    @property
    def tokens(self) -> int:
        return sum(replica.tokens for replica in self.replicas)

    @property
    def busy_s(self) -> float:
        return sum(replica.busy_s for replica in self.replicas) / max(1, len(self.replicas))

    # The servers ------------------------------------------------------------------------------------------------

    def start(self, note: Callable[[str], None], failed: Callable[[CrrlError], None]) -> None:
        """Returns when all servers serve the model. `failed`: told later if one is lost for good. Raises UsageError,
        CrrlError."""
        transport = self._written = self._transport()
        servers = self._make_servers(transport, note)
        limit = self._told.context
        for number, server in enumerate(servers):
            which = f" {number + 1} of {len(servers)}" if len(servers) > 1 else ""
            self.replicas.append(
                Replica(
                    server,
                    transport,
                    self._serves,
                    self._version,
                    context=limit,
                    probe_ids=self.probe_ids,
                    share=self._share,
                    note=lambda said, which=which: note(said.replace("vLLM", f"vLLM{which}", 1)),  # type: ignore[misc]
                    give_up=lambda error: self._give_up(error, failed),
                )
            )
        self._closing.callback(self._all, Replica.close)
        self._start_all()
        self._told = dataclasses.replace(self._told, model=self.replicas[0].model)

    def _start_all(self) -> None:
        """At the same time. Raises what the first that fails raises; the others are then not waited for."""
        with ThreadPoolExecutor(len(self.replicas), "crrl-vllm") as threads:
            try:
                for done in as_completed([threads.submit(replica.start) for replica in self.replicas]):
                    done.result()
            except BaseException:
                for replica in self.replicas:
                    replica.end()
                raise

    def _transport(self) -> transports.Transport:
        """And what is served at first, in a form that this transport has."""
        self._serves = self._model
        if is_adapter(self._model) and self._transport_name != "adapter":
            self._serves = self._folder / "merged"
            load_model(self._model, dtype=getattr(torch, self._dtype), base=self._base).save_pretrained(self._serves)
        made = transports.make(
            self._transport_name, self._serves, self._base_folder, self._dtype, self._rank, self._folder
        )
        if isinstance(made, transports.Adapter) and not is_adapter(self._model):
            self._serves = self._folder / "untrained"
            made.identity(self._serves)
        self._first = self._serves
        return made

    def _give_up(self, error: Exception, failed: Callable[[CrrlError], None]) -> CrrlError:
        """No server has the policy that a run needs, or some have it and some do not: all of them end."""
        lost = error if isinstance(error, CrrlError) else CrrlError(f"The vLLM server is lost: {error!r}")
        for replica in self.replicas:
            replica.end(lost)
        failed(lost)
        return lost

    def _all(self, what: Callable[[Replica], Given]) -> list[Given]:
        """Of every replica, at the same time. Raises what the first that failed raised, when all are done."""
        with ThreadPoolExecutor(max(1, len(self.replicas)), "crrl-vllm") as threads:
            return [done.result() for done in [threads.submit(what, replica) for replica in self.replicas]]

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
        self._written.write(source, target)
        old, self._serves = self._serves, target
        first, *others = self._all(lambda replica: replica.push(target, version))
        if old not in (self._first, target):
            shutil.rmtree(old, ignore_errors=True)
        return dataclasses.replace(first, others=tuple(others))

    async def keep(self, version: int) -> None:
        await asyncio.to_thread(self._all, lambda replica: replica.keep(version))

    def forget(self, scope: str) -> None:
        """vLLM's log-probs depend on the batch in their last bits anyway: nothing is promised that this would keep."""

    @contextmanager
    def resting(self) -> Iterator[None]:
        self._all(Replica.rest)
        try:
            yield
        finally:
            if self._share:
                torch.cuda.empty_cache()  # the servers' weights come back to where these tensors were
            self._all(Replica.go_on)


def _urls(url: str) -> tuple[str, ...]:
    """Raises UsageError: one of them is no address, or is there twice."""
    urls = tuple(each.strip().rstrip("/") for each in url.split(",")) if url else ()
    for each in urls:
        if not re.fullmatch(r"https?://[^/?#]+", each):
            raise UsageError(
                f"engine.url={url}: '{each}' is not http://HOST:PORT.", "Leave it out, and the run starts a server."
            )
    if len(set(urls)) < len(urls):
        raise UsageError(f"engine.url={url} names a server twice.", "Name each once.")
    return urls


def _text_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise CrrlError(f"{folder} is not a Hugging Face model folder: {error}", "Give one with config.json.") from None
    return config | config.get("text_config", {})
