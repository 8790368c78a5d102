"""A vLLM server of the run's own: started, waited for, watched, started again, ended with the run.

Invariants: nobody reaches a server before it is ready. It listens on a private socket under another name, and gets the
name that the sampler knows when it has the weights and the version that the run is at; a restarted one, too. It ends
with the run, however that ends (`keeper.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import torch

from crrl.engines.vllm.client import MODEL
from crrl.engines.vllm.transports import Transport, accepted
from crrl.errors import CrrlError, UsageError

PLUGIN = Path(__file__).with_name("plugin")
START_S = 1800.0
STOP_S = 30.0
HEALTH_S = 30.0
TOLD_S = 15.0
"""Between two words about a start."""
LAST_LINES = 15
SOCKET_BYTES = 107
"""The longest name of a socket that Linux takes."""
FAULTS = (
    ("address already in use", "Another process has a port that vLLM wants", "End it, or set VLLM_PORT to a free one."),
    ("no space left", "The disk, or /dev/shm, is full", "Make room in /tmp and /dev/shm."),
    ("is less than desired gpu memory utilization", "The GPU has too little memory left", "Lower engine.memory_share."),
    ("out of memory", "There is not enough memory", "Lower engine.memory_gb, engine.max_batch or engine.context."),
    ("cannot allocate memory", "There is not enough memory", "Lower engine.memory_gb or engine.context."),
    ("no available memory for the cache", "There is no memory for keys and values", "Raise engine.memory_gb."),
    ("is larger than the available kv cache memory", "engine.memory_gb is too little for one request of full length",
     "Raise engine.memory_gb, or lower engine.context."),
    ("to serve at least one request", "engine.memory_gb is too little for one request of full length",
     "Raise engine.memory_gb, or lower engine.context."),
    ("are not supported for now", "vLLM does not know this model", "Use engine=local, or a model that vLLM serves."),
    ("not supported", "vLLM cannot serve this model so", "See the log; engine=local serves any transformers model."),
)  # fmt: skip
"""What the log's end says -> what it means, and what to do. The first that fits."""


def private_folder() -> Path:
    """A new one for a run's servers: their sockets, vLLM's own among them, and weights under way. Raises UsageError."""
    folder = Path(tempfile.mkdtemp(prefix="crrl-vllm-"))
    if len(os.fsencode(folder / str(uuid.UUID(int=0)))) > SOCKET_BYTES:
        folder.rmdir()
        raise UsageError(
            f"vLLM's sockets would have names of more than {SOCKET_BYTES} bytes in {folder.parent}.",
            "Set TMPDIR to a folder with a shorter name.",
        )
    return folder


def socket_in(folder: Path, number: int) -> Path:
    """Where a run's server is found, the first or one more of several."""
    return folder / f"serving-{number}.sock"


@dataclass(frozen=True)
class Wanted:
    """What a server is started with. `context`: of prompt and generation together. `memory_gb`: for keys and values, on
    a CPU; `memory_share`: of a GPU's, for everything; `tensor_parallel`: number of GPUs; `sleeps`: it may be put to
    sleep."""

    where: torch.device
    dtype: str
    context: int
    max_batch: int
    memory_gb: int
    memory_share: float
    tensor_parallel: int
    sleeps: bool
    transport: Transport

    def arguments(self) -> list[str]:
        words = {
            "--dtype": self.dtype,
            "--max-model-len": self.context,
            "--max-num-seqs": self.max_batch,
            "--logprobs-mode": "processed_logprobs",
            "--generation-config": "vllm",  # not the model's own sampling settings
            "--worker-extension-cls": "crrl_vllm.Worker",
        }
        flags = ["--enable-scale-out", "--enable-prefix-caching", "--disable-uvicorn-access-log"]
        if self.where.type == "cpu":
            flags.append("--enforce-eager")  # compiling takes minutes
        else:
            words |= {
                "--gpu-memory-utilization": self.memory_share,
                "--tensor-parallel-size": self.tensor_parallel,
            }
            flags += ["--enable-sleep-mode"] if self.sleeps else []
        return [*(str(word) for pair in words.items() for word in pair), *flags, *self.transport.arguments()]

    def variables(self, number: int = 0) -> dict[str, str]:
        """Of the server with this number, of several side by side: each has cards of its own."""
        told = {
            "PYTHONPATH": str(PLUGIN),
            "VLLM_PLUGINS": "crrl",
            "VLLM_SERVER_DEV_MODE": "1",  # pause, weights, versions
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **self.transport.variables(),
        }
        if self.where.type == "cpu":
            told |= {
                "VLLM_CPU_KVCACHE_SPACE": str(self.memory_gb),
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "OMP_NUM_THREADS": str(torch.get_num_threads()),
            }
        else:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            cards = seen.split(",") if seen else [str(card) for card in range(torch.cuda.device_count())]
            first = (self.where.index or 0) + number * self.tensor_parallel
            told["CUDA_VISIBLE_DEVICES"] = ",".join(cards[first : first + self.tensor_parallel])
        return told


class VllmServer:
    """Args:
    python: of vLLM's environment. arguments: for every start, besides the model. environment: variables.
    folder: a private one, for the socket. log: where the server writes. number: of several in one folder.
    """

    def __init__(
        self,
        python: Path,
        arguments: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        log: Path,
        number: int = 0,
    ) -> None:
        self._python, self._arguments, self._environment = python, list(arguments), environment
        self._hidden, self.socket, self.log = folder / f"starting-{number}.sock", socket_in(folder, number), log
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Lock()

    def start(self, model: Path, note: Callable[[str], None]) -> None:
        """Returns when it answers, still under its hidden name. Raises CrrlError: it ended, or takes too long; with
        the log's end."""
        for path in (self._hidden, self.socket):
            path.unlink(missing_ok=True)
        note("vLLM starts in a process of its own")
        began = len(self._text())
        command = [str(self._python), "-c", _MAIN, "--model", str(model), "--served-model-name", MODEL]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, str(Path(__file__).with_name("keeper.py")), str(self._hidden.parent)),
                    *(*command, "--uds", str(self._hidden), *self._arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self._hidden.parent), **self._environment},
            )
        self._wait(note, began)

    def _wait(self, note: Callable[[str], None], began: int) -> None:
        assert self._process is not None
        start = told = time.monotonic()
        while True:
            if (code := self._process.poll()) is not None:
                raise self._fault(f"The vLLM server ended with {code} while it started", began)
            with contextlib.suppress(httpx.HTTPError), self.http(hidden=True) as http:
                if http.get("/health", timeout=5.0).status_code == 200:
                    note(f"vLLM serves after {time.monotonic() - start:.0f} s")
                    return
            now = time.monotonic()
            if now - start > START_S:
                self.stop()
                raise self._fault(f"The vLLM server did not answer within {START_S / 60:.0f} minutes", began)
            if now - told > TOLD_S:
                told = now
                note(f"vLLM starts, {now - start:.0f} s so far: {self._last_words(began)}")
            time.sleep(0.25)

    def show(self) -> None:
        """It gets the name under which it is sampled from."""
        self._hidden.rename(self.socket)

    def hide(self) -> None:
        """Requests wait from now on; those under way go on."""
        with contextlib.suppress(FileNotFoundError):
            self.socket.rename(self._hidden)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def http(self, *, hidden: bool = False) -> httpx.Client:
        # No TLS on a Unix socket: loading certificates would cost 24 ms of CPU for each client.
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._hidden if hidden else self.socket), verify=False),
            base_url="http://vllm",
            timeout=None,
            trust_env=False,
        )

    def healthy(self) -> bool:
        """Whether it is there, and all its processes are. One that is slow is healthy."""
        if not self.alive:
            return False
        try:
            with self.http() as http:
                return http.get("/health", timeout=HEALTH_S).status_code == 200
        except httpx.TimeoutException:
            return True
        except httpx.HTTPError:  # it takes no connections any more, and waits for those that it has
            return False

    def stop(self, *, at_once: bool = False) -> None:
        """End it and all its processes. Idempotent; several threads may."""
        with self._stopping:
            if self._process is not None and self._process.stdin is not None and not self._process.stdin.closed:
                self._stop(self._process, self._process.stdin, at_once)

    def _stop(self, process: subprocess.Popen[bytes], told: IO[bytes], at_once: bool) -> None:
        with contextlib.suppress(OSError):
            told.write(b"end")
            told.flush()
        with contextlib.suppress(OSError):
            told.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):  # the group: the keeper itself may have been killed
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in (self._hidden, self.socket):
            path.unlink(missing_ok=True)

    def _text(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")
        return ""

    def _last_words(self, began: int) -> str:
        said = re.findall(r"INFO [\d:. -]+\[[\w.]+:\d+\] (\S.*)", self._text()[began:])
        return said[-1].strip()[:100] if said else "it has said nothing yet"

    def _fault(self, what: str, began: int) -> CrrlError:
        said = self._text()[began:]
        found = next((fault for fault in FAULTS if fault[0] in said.lower()), None)
        end = "\n".join(_worth_reading(said))
        named, remedy = (f": {found[1].lower()}", found[2]) if found else ("", "The log says why.")
        return CrrlError(f"{what}{named}.\n{end}", f"{remedy} The whole log: {self.log}")


_MAIN = "from vllm.entrypoints.launchers.api_server.entry import main; main()"
"""Its command would fail: it asks for the version of a distribution named vllm, and on a CPU that is vllm-cpu."""


def _worth_reading(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and "Traceback" not in line]
    return [*errors[-3:-1], *lines[-LAST_LINES:]] if errors else lines[-LAST_LINES:]


def answer(response: httpx.Response) -> Any:
    """The JSON of an answer. Raises CrrlError: the server refuses."""
    return accepted(response).json() if response.content else None
