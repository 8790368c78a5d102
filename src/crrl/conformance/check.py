"""Conformance: replays a recording of an agent through the real gateway, with an engine that gives the recorded
answers.

The check does not rely on the tree. It compares every assistant message that comes back with the answers that this
session got, with its own comparison (`_Said`); a message that came back unchanged must be in the prompt that the
*engine* saw, token for token as it was sampled. If it is not, its tokens were re-rendered: a bug.

Long texts in a recording may be cut: the check cannot see a change inside the cut part, nor real lengths.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
from tokenizers import Tokenizer

from crrl import models
from crrl.conformance.recording import Recorded, Reply, sessions
from crrl.conformance.replies import Broken, api_of, read_reply
from crrl.engines.api import Chunk, Request
from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.api import Budget, Sample
from crrl.gateway.app import Gateway
from crrl.gateway.canonical import Message
from crrl.gateway.dialects import DIALECTS, BadRequest
from crrl.gateway.renderer import Renderer, load_renderer

CONTEXT = 1 << 20
UNLIMITED = Budget(tokens=1 << 40, turns=1 << 20)
TIMEOUT_S = 60.0
CUT_OFF = Reply("The rest of this answer never arrived.")  # the answer to a dropped request that nobody repeats
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@dataclass
class SessionReport:
    """One (variant, scenario). `matched`: turns in histories that are, in the engine's prompt, the tokens sampled for
    them; `re_rendered`: tokens of those that are not; `changed`: turns that the agent itself had changed, or wrote."""

    variant: str
    scenario: str
    requests: int = 0
    accepted: int = 0
    matched: int = 0
    re_rendered: int = 0
    changed: int = 0
    replayed: int = 0  # requests answered with a stored sample
    kinds_differ: int = 0  # main calls by the recording but not by the gateway, or the other way round
    branches: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    trained_tokens: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Sums over sessions, and the sessions."""

    sessions: list[SessionReport]

    def total(self, name: str) -> int:
        return sum(getattr(session, name) for session in self.sessions)

    @property
    def branches(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for session in self.sessions:
            counts.update(session.branches)
        return dict(sorted(counts.items()))

    @property
    def passed(self) -> bool:
        return not any(s.problems or s.re_rendered or s.accepted < s.requests for s in self.sessions)


async def check(recorded: list[Recorded]) -> Report:
    """Replay every session of a recording, one after the other."""
    tokenizer = Path(models.__file__).parent / "tiny" / "tokenizer.json"
    renderer = load_renderer(Tokenizer.from_file(str(tokenizer)), "qwen3")
    player = Player(renderer)
    gateway = Gateway(player, renderer, grace_s=TIMEOUT_S)
    await gateway.start()
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            return Report([await Replay(gateway, player, http, run).run() for run in sessions(recorded).values()])
    finally:
        await gateway.stop()


class Player(ScriptedEngine):
    """The engine, and its next answer. It gives recorded answers whole, as the recorded server did, which ignored the
    requested length. `log`: prompts and answers, in the order of the requests."""

    def __init__(self, renderer: Renderer) -> None:
        super().__init__(self._recite, context=CONTEXT)
        self._renderer = renderer
        self._next: list[int] = []
        self.log: list[tuple[list[int], list[int]]] = []

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        return super().generate(replace(request, max_tokens=CONTEXT))

    def _recite(self, prompt_ids: list[int]) -> list[int]:
        self.log.append((prompt_ids, self._next))
        return self._next

    def say(self, reply: Reply) -> list[int]:
        """A scripted answer as tokens: reasoning, then content, then calls; then the end of the turn."""
        text = f"<think>\n{reply.reasoning}\n</think>\n\n" if reply.reasoning else ""
        text += reply.text
        for _, name, arguments in reply.calls:
            text += f'\n<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'
        self._next = [*self._renderer.tokenizer.encode(text), self._renderer.stop_ids[0]]
        return self._next


@dataclass(frozen=True)
class _Said:
    """What an assistant turn says, for comparison: text and calls; reasoning apart, because agents drop it."""

    text: str
    calls: tuple[tuple[str, str], ...]
    reasoning: tuple[str, ...] = field(compare=False)

    @classmethod
    def of(cls, text: str, reasoning: str | None, calls: Sequence[tuple[str, str]]) -> _Said:
        pieces = [reasoning or "", *_THINK.findall(text)]
        return cls(
            text=_THINK.sub("", text).strip(),
            calls=tuple((name, _as_json(arguments)) for name, arguments in calls),
            reasoning=tuple("".join(piece.split()) for piece in pieces if piece.strip()),
        )

    def comes_back_as(self, sent: _Said) -> bool:
        kept = set(sent.reasoning) <= set(self.reasoning) or "".join(sent.reasoning) == "".join(self.reasoning)
        return self == sent and kept


def _as_json(text: str) -> str:
    try:
        return json.dumps(json.loads(text or "{}"), sort_keys=True)
    except ValueError:
        return text.strip()


class Replay:
    """One session, from its first request to its rows."""

    def __init__(self, gateway: Gateway, player: Player, http: httpx.AsyncClient, run: list[Recorded]) -> None:
        self._gateway, self._player, self._http, self._run = gateway, player, http, run
        self._report = SessionReport(run[0].variant, run[0].scenario, requests=len(run))
        self._given: list[tuple[_Said, list[int]]] = []
        self._first = len(player.log)  # requests to the engine before this session
        self._sides: dict[int, bool] = {}  # the engine's request -> what the recording calls it

    async def run(self) -> SessionReport:
        name = f"{self._report.variant}/{self._report.scenario}"
        self._handle = self._gateway.open(name, UNLIMITED)
        for place, one in enumerate(self._run):
            try:
                await self._replay(one, place)
                self._report.accepted += 1
            except (Broken, BadRequest, httpx.HTTPError, TimeoutError) as error:
                what = f"request {one.i} ({one.method} {one.path})"
                self._report.problems.append(f"{what}: {error or type(error).__name__}")
        record = await self._gateway.close(name)
        self._count(record.samples)
        return self._report

    async def _replay(self, one: Recorded, place: int) -> None:
        """Raises Broken: not answered as expected."""
        if not api_of(one.path):
            await self._probe(one)
        elif isinstance(one.resp, Reply):
            await self._answer(one, one.resp)
        elif one.resp == "FAIL-drop":
            await self._drop(one, place)
        elif one.resp == "FAIL-ctx":
            await self._refuse(one)
        elif isinstance(one.resp, str):  # another server's fault, which never reaches a gateway
            self._history(one)

    async def _probe(self, one: Recorded) -> None:
        """Not a model API: the recorded status, or 404."""
        reply = await self._send(one)
        expected = one.resp if isinstance(one.resp, int) else 200
        if reply.status_code not in (expected, 404):
            raise Broken(f"answered {reply.status_code}, not {expected}")

    async def _answer(self, one: Recorded, expected: Reply) -> None:
        ids = self._player.say(expected)
        asked = len(self._player.log)
        reply = await self._send(one)
        if reply.status_code != 200:
            raise Broken(f"answered {reply.status_code}: {reply.text[:300]}")
        streamed = reply.headers["content-type"].startswith("text/event-stream")
        if problem := _difference(expected, read_reply(one.path, reply.content, streamed)):
            raise Broken(problem)
        if len(self._player.log) > asked:
            if one.side is not None:
                self._sides[asked] = one.side
            self._match(self._history(one))
        else:
            self._report.replayed += 1
        self._given.append((_said(expected), ids))

    def _match(self, history: list[Message]) -> None:
        """Compare the history with what was sampled, and both with the prompt that the engine saw."""
        prompt, at = self._player.log[-1][0], 0
        for message in history:
            if message.role != "assistant":
                continue
            said = _Said.of(message.content, message.reasoning, [(c.name, c.arguments) for c in message.calls])
            unchanged = [ids for given, ids in self._given if given.comes_back_as(said)]
            ends = [end for ids in unchanged if (end := _find(prompt, ids, at)) is not None]
            if not unchanged:
                self._report.changed += 1
            elif ends:
                self._report.matched += 1
                at = min(ends)
            else:
                self._report.re_rendered += len(unchanged[-1])

    async def _drop(self, one: Recorded, place: int) -> None:
        """The client disappears while its answer is being sampled. If it repeats the request, it gets that very
        sample."""
        later = (r for r in self._run[place + 1 :] if r.body == one.body)
        again = next((r.resp for r in later if isinstance(r.resp, Reply)), CUT_OFF)
        self._player.say(again)
        asked = len(self._player.log)
        with self._player.resting():
            request = asyncio.ensure_future(self._send(one))
            await _until(lambda: len(self._player.log) > asked or request.done())
            if request.done():
                raise Broken(f"answered {request.result().status_code}")
            self._match(self._history(one))
            request.cancel()
            turn = self._handle._session.tree.turns[-1]
            await _until(lambda: not turn.clients)
        await _until(lambda: turn.done)

    async def _refuse(self, one: Recorded) -> None:
        """A context that is full: the gateway's own refusal, in the API's own words."""
        session = self._handle._session
        session.budget = replace(UNLIMITED, context=1)
        try:
            reply = await self._send(one)
        finally:
            session.budget = UNLIMITED
        if reply.status_code != 400 or not re.search("context_length_exceeded|prompt is too long", reply.text):
            raise Broken(f"answered {reply.status_code} to a full context: {reply.text[:300]}")

    async def _send(self, one: Recorded) -> httpx.Response:
        url = self._handle.base_url.removesuffix("/v1") + one.path
        body = None if one.body is None else json.dumps(one.body).encode()
        headers = {k: v for k, v in one.headers.items() if k.lower() != "content-type"}
        # Recordings are of text: bytes that no header may hold (a cut mark) are not the agent's.
        headers = {k: v.encode("ascii", "ignore").decode() for k, v in headers.items()}
        headers["content-type"] = "application/json"
        return await self._http.request(one.method, url, headers=headers, content=body)

    def _history(self, one: Recorded) -> list[Message]:
        """What the agent sent. Raises BadRequest."""
        dialect = DIALECTS[api_of(one.path).removeprefix("/v1/")]
        headers = {k.lower(): v for k, v in one.headers.items()}
        return dialect.read(json.dumps(one.body).encode(), headers).ask.messages

    def _count(self, samples: list[Sample]) -> None:
        """Checks the ledger against the engine's own log, and the rows made from it."""
        from crrl.learning.rows import rows_of
        from crrl.rollout.api import Episode

        report, player = self._report, self._player
        if [(s.prompt_ids, s.ids) for s in samples] != player.log[self._first :]:
            report.problems.append("the ledger is not what the engine was asked and gave")
        branches = Counter(s.branch if s.kind == "main" else s.kind for s in samples if s.branch)
        report.branches = dict(sorted(branches.items()))
        side = [self._sides.get(self._first + i) for i in range(len(samples))]
        report.kinds_differ = sum(
            said is not None and said != (sample.kind in ("side", "compaction"))
            for said, sample in zip(side, samples, strict=True)
        )
        name = f"{report.variant}/{report.scenario}"
        _, counts = rows_of(Episode(name, "check", "check", 0, 0, "scored", samples), 1.0)
        report.rows, report.trained_tokens = counts.rows, counts.trained


async def _until(true: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    async with asyncio.timeout(TIMEOUT_S):
        while not true():  # noqa: ASYNC110 - of things that tell nobody when they change
            await asyncio.sleep(0.002)


def _said(reply: Reply) -> _Said:
    return _Said.of(reply.text, reply.reasoning, [(name, arguments) for _, name, arguments in reply.calls])


def _difference(expected: Reply, got: Reply) -> str:
    """The part of the agent's answer that is not in the script; "" if none. A call that is not JSON comes as text."""
    want, have = _said(expected), _said(got)
    if "".join(want.reasoning) != "".join(have.reasoning):
        return f"reasoning {got.reasoning!r} instead of {expected.reasoning!r}"
    broken = [(name, arguments) for _, name, arguments in expected.calls if not _is_json(arguments)]
    if not broken:
        return "" if want == have else f"{have} instead of {want}"
    everything = got.text + "".join(name + arguments for _, name, arguments in got.calls)
    missing = [part for part in (want.text, *(part for call in broken for part in call)) if part not in everything]
    return f"{missing} are missing in {got}" if missing else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True


def _find(ids: list[int], part: list[int], start: int) -> int | None:
    """Where `part` ends in `ids`, at or after `start`."""
    for i in range(start, len(ids) - len(part) + 1):
        if ids[i] == part[0] and ids[i : i + len(part)] == part:
            return i + len(part)
    return None
