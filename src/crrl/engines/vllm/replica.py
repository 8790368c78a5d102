"""One vLLM server of an engine, and what it serves: watched, started again when it dies, given new weights.

Invariant 7: a push arrives whole, or ends the server. Weights are taken in between two decode steps, while the
generations under way freeze; then comes the version, and then all keys and values are dropped: the next token comes
from the new weights alone, and says so. The probe reads its beginning from the prefix cache where that still has it:
keys and values of other weights would show, too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from crrl.engines import EngineError
from crrl.engines.api import Chunk, Probe, Request
from crrl.engines.vllm import protocol
from crrl.engines.vllm.client import MODEL
from crrl.engines.vllm.foreign import ForeignServer
from crrl.engines.vllm.server import VllmServer, answer
from crrl.engines.vllm.transports import Transport
from crrl.errors import CrrlError, UsageError

SAMPLED = 8
"""Tokens behind the probe, sampled greedily by the way that generations go."""
WATCH_S = 1.0
SILENT = 2  # looks in a row at which it was dead
PAUSE = {"mode": "keep", "clear_cache": "false"}
"""Generations freeze, and keep what they have: a push drops it by itself."""
SLEEP = {"level": "1", "mode": "keep"}
"""Generations freeze; keys and values are dropped, and the weights go to the host's memory. Level 2 would drop them."""
AWAKE_BOUND = 1e-3
"""Nats, between the probe before a sleep and after it: the same weights, by the same kernels."""
RESTARTS = 3  # without a push in between


class Replica:
    """Args:
    folder, version: what it serves at first. context: of requests. probe_ids: what a push is proved on.
    share: while it rests, its GPU is another's. note: told how far it is. give_up: told when it is lost for good; it
    ends all replicas, by `end`.
    """

    def __init__(
        self,
        server: VllmServer | ForeignServer,
        transport: Transport,
        folder: Path,
        version: int,
        *,
        context: int,
        probe_ids: list[int],
        share: bool,
        note: Callable[[str], None],
        give_up: Callable[[Exception], CrrlError],
    ) -> None:
        self.server, self._transport = server, transport
        self._serves, self._version = folder, version
        self._context, self._probe_ids, self._share = context, probe_ids, share
        self._note, self._give_up = note, give_up
        self.model = transport.model(MODEL)
        self.tokens = self._counted = 0
        self.busy_s = 0.0
        self._up = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # whoever starts the server, or changes what it serves
        self._failure: CrrlError | None = None
        self._restarts = self._rests = 0
        self._before_sleep: Probe | None = None
        self._watching: threading.Thread | None = None

    # The server -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the server serves, and is watched. Raises UsageError, CrrlError."""
        self._serve()
        self._watching = threading.Thread(target=self._watch, name="crrl-vllm", daemon=True)
        self._watching.start()

    def _serve(self) -> None:
        """Start the server on what is to be served, and let itself be found. Raises CrrlError."""
        self.server.start(self._transport.start_folder(self._serves), self._note)
        with self.server.http(hidden=True) as http:
            _require_ours(http)
            self._transport.begin(http, self._serves)
            if not isinstance(self.server, ForeignServer):
                answer(http.post("/update_weight_version", json={"new_version": str(self._version)}))
        if isinstance(self.server, ForeignServer):
            self.model = self._transport.model(self.server.model)
            self._change(self._serves, self._version)
        self.server.show()
        with self.server.http() as http:
            self._go_on(http)  # keys and values that the next push must drop
        self._up.set()

    def _watch(self) -> None:
        last, silent = time.monotonic(), 0
        while not self._ended.wait(WATCH_S):
            now = time.monotonic()
            silent = 0 if self.server.healthy() else silent + 1
            if silent > SILENT or not self._up.is_set():
                self._again()
                silent = 0
            elif not silent:
                self._count(now - last)
            last = now

    def _again(self) -> None:
        """The server has died: start it on the weights it had last. Requests wait meanwhile."""
        self._up.clear()
        self.server.stop(at_once=True)  # ends what still waits for it, too: a push
        self._restarts += 1
        while self._share and self._rests and not self._ended.wait(WATCH_S):
            pass  # its card is the trainer's
        try:
            with self._lock:
                if self._ended.is_set():
                    return
                if self._restarts > RESTARTS:
                    raise CrrlError(f"The vLLM server died {RESTARTS + 1} times.", f"See its log: {self.server.log}")
                self._note(f"The vLLM server died. It is started again, with the weights of version {self._version}")
                self._serve()
        except Exception as error:  # whatever it is: nobody else would notice, and all would wait for ever
            if not self._ended.is_set():  # closed meanwhile
                self._give_up(error)

    def _count(self, seconds: float) -> None:
        with contextlib.suppress(httpx.HTTPError, CrrlError, ValueError), self.server.http() as http:
            told: dict[str, float] = {}
            for name, value in _metrics(http.get("/metrics", timeout=WATCH_S * 10).text):
                told[name] = told.get(name, 0.0) + value
            counted = int(told.get("vllm:generation_tokens_total", 0))
            self.tokens += counted - (self._counted if counted >= self._counted else 0)  # a new server counts anew
            self._counted = counted
            self.busy_s += seconds if told.get("vllm:num_requests_running") else 0.0

    def _ready(self) -> None:
        """Returns when there is a server. Raises CrrlError: there will be none any more."""
        while not self._up.wait(WATCH_S) and not self._ended.is_set():
            pass
        if self._ended.is_set():
            raise self._failure or CrrlError("The vLLM server was ended.")

    def end(self, failure: CrrlError | None = None) -> None:
        """The server goes, and whoever waits for it is told. Idempotent."""
        self._failure = self._failure or failure
        self._ended.set()
        self.server.stop()

    def close(self) -> None:
        self.end()
        if self._watching is not None:
            self._watching.join()
        self.server.stop()  # it may have been starting again

    # What the trainer wants of it -----------------------------------------------------------------------------------

    def push(self, folder: Path, version: int) -> Probe:
        """Raises CrrlError: it serves nothing any more."""
        self._ready()
        with self._lock:
            self._serves, self._version = folder, version
            try:
                self._change(folder, version)
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):  # some weights may be new, others old: there is no policy left to serve
                    self._give_up(error)
        while True:
            self._ready()
            try:
                with self.server.http() as http:
                    probe = self._probe(http)
                break
            except EngineError as error:
                raise CrrlError(f"The push of version {version} cannot be proved: {error.detail}", "Resume.") from None
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):
                    raise
        self._restarts = 0
        return probe

    def _died(self, error: Exception) -> bool:
        """Whether the server is dead or dying, whatever it answered. It is then started again, from what it is to
        serve."""
        if isinstance(error, httpx.HTTPError) or not self.server.healthy():
            self._up.clear()
            self.server.stop(at_once=True)
            return True
        return False

    def _change(self, folder: Path, version: int) -> None:
        """Raises CrrlError, httpx.HTTPError: it may be half done."""
        with self.server.http() as http:
            answer(http.post("/pause", params=PAUSE))
            self._transport.load(http, folder)
            answer(http.post("/update_weight_version", json={"new_version": str(version)}))
            self.drop_caches(http)
            if not self._rests:
                answer(http.post("/resume"))

    def drop_caches(self, http: httpx.Client) -> None:
        """Of keys and values: what was sampled before is read anew. Raises CrrlError: it keeps them."""
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
        scored = self._score(http)
        if held:
            answer(http.post("/pause", params=PAUSE))
        return Probe(version, [*self._probe_ids, *went_on.ids], [*scored, *went_on.logprobs])

    def _score(self, http: httpx.Client) -> list[float]:
        body = {"model": self.model, **protocol.score_body(self._probe_ids)}
        return protocol.scores(answer(http.post(protocol.PATH, json=body)), self._probe_ids)

    def _go_on(self, http: httpx.Client) -> Chunk:
        """A few tokens behind the probe, greedily; keeps the probe in the prefix cache until the next push."""
        request = Request("probe", self._probe_ids, SAMPLED, temperature=0.0)
        body = protocol.body(request, self._context, seeded=False) | {"stream": False, "model": self.model}
        del body["request_id"]
        return protocol.whole(answer(http.post(protocol.PATH, json=body)))

    def keep(self, version: int) -> None:
        self._ready()
        with self._lock:
            self._version = version
            try:
                with self.server.http() as http:
                    answer(http.post("/update_weight_version", json={"new_version": str(version)}))
            except (CrrlError, httpx.HTTPError) as error:
                if not self._died(error):
                    raise

    def rest(self) -> None:
        """Raises CrrlError: there is no server any more, or it does not sleep."""
        self._ready()
        with self._lock:
            self._rests += 1
            if self._rests == 1:
                self._ask(self._sleep if self._share else self._pause)

    def go_on(self) -> None:
        """Raises CrrlError: it woke up with other weights."""
        with self._lock:
            self._rests -= 1
            if not self._rests:
                self._ask(self._wake if self._share else self._resume)

    def _ask(self, what: Callable[[httpx.Client], None]) -> None:
        """One that is dying does not matter; a new one does not rest."""
        try:
            with self.server.http() as http:
                what(http)
        except (CrrlError, httpx.HTTPError) as error:
            if self._share and not self._died(error):
                raise self._give_up(error) from error

    def _pause(self, http: httpx.Client) -> None:
        answer(http.post("/pause", params=PAUSE))

    def _resume(self, http: httpx.Client) -> None:
        answer(http.post("/resume"))

    def _sleep(self, http: httpx.Client) -> None:
        version = protocol.version_of(answer(http.get("/weight_info"))["weight_version"])
        self._before_sleep = Probe(version, self._probe_ids, self._score(http))
        answer(http.post("/sleep", params=SLEEP))

    def _wake(self, http: httpx.Client) -> None:
        """Generations under way are prefilled anew: a sleep has dropped their keys and values."""
        answer(http.post("/wake_up"))
        if self._before_sleep is not None:
            gaps = [abs(a - b) for a, b in zip(self._score(http), self._before_sleep.logprobs, strict=True)]
            if not max(gaps) <= AWAKE_BOUND:
                raise CrrlError(
                    f"The vLLM server woke up with other weights: a log-prob of the probe moved by {max(gaps):.2e}.",
                    "Resume, with engine.share=false if it happens again.",
                )
            self._before_sleep = None


def _require_ours(http: httpx.Client) -> None:
    """Raises UsageError: the server's log-probs are not those that training needs."""
    told = answer(http.get("/server_info", params={"config_format": "json"}))
    mode = told["vllm_config"]["model_config"].get("logprobs_mode")
    if mode != "processed_logprobs":
        raise UsageError(f"The vLLM server gives {mode}.", "Start it with --logprobs-mode processed_logprobs.")


def _metrics(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if line.startswith(("vllm:generation_tokens_total", "vllm:num_requests_running")):
            name, _, value = line.rpartition(" ")
            yield name.partition("{")[0], float(value)
