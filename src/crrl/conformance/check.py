"""Conformance: replays a recording of an agent through the real gateway, with an engine that gives the recorded
answers, in the form of one model family.

The check does not rely on the tree. It compares every assistant message that comes back with the answers that this
session got, with its own comparison (`_Said`); a message that came back unchanged must be in the prompt that the
*engine* saw, token for token as it was sampled. If it is not, its tokens were re-rendered: a bug. What the agent wrote
itself must be in that prompt, too, with results in the order of their calls; and each request must be of the kind that
the recording says.

Long texts in a recording may be cut: the check cannot see a change inside the cut part, nor real lengths.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import httpx

from crrl.conformance import bodies
from crrl.conformance.playing import Player, flat
from crrl.conformance.recording import Recorded, Reply, sessions
from crrl.conformance.replies import Broken, api_of, read_reply
from crrl.gateway.api import Budget, Sample, SampleKind
from crrl.gateway.app import Gateway
from crrl.gateway.canonical import NONCE, Message
from crrl.gateway.dialects import DIALECTS, BadRequest
from crrl.gateway.renderer import Renderer

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
    answers: int = 0  # that were sampled
    labelled: int = 0  # those whose kind the recording says
    kinds_differ: int = 0  # of those, the ones that are of another kind by the gateway
    branches: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    trained_tokens: int = 0
    problems: list[str] = field(default_factory=list)
    ended: str = ""  # why the rest of the session was not played


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


async def check(recorded: list[Recorded], renderer: Renderer) -> Report:
    """Replay every session of a recording, one after the other, as a policy of this renderer's family."""
    player = Player(renderer)
    gateway = Gateway(player, renderer, grace_s=TIMEOUT_S)
    await gateway.start()
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            return Report([await Replay(gateway, player, http, run).run() for run in sessions(recorded).values()])
    finally:
        await gateway.stop()


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
        kept = set(sent.reasoning) <= set(self.reasoning) or "".join(sent.reasoning) in "".join(self.reasoning)
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
        self._asked: dict[int, Recorded] = {}  # the engine's request -> the recorded one
        self._called: dict[tuple[str, ...], tuple[_Said, list[int]]] = {}  # answers by the ids of their calls
        self._names: dict[str, str] = {}  # recorded ids of calls -> those that the gateway gave

    async def run(self) -> SessionReport:
        name = f"{self._report.variant}/{self._report.scenario}"
        self._handle = self._gateway.open(name, UNLIMITED)
        for place, one in enumerate(self._run):
            one = replace(one, body=bodies.renamed(one.body, self._names))  # agents send back the ids they got
            try:
                await self._replay(one, place)
                self._report.accepted += 1
            except (Broken, BadRequest, httpx.HTTPError, TimeoutError) as error:
                what = f"request {one.i} ({one.method} {one.path})"
                self._report.problems.append(f"{what}: {error or type(error).__name__}")
            if self._report.ended:
                self._report.requests = place + 1
                break
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

    async def _answer(self, one: Recorded, recorded: Reply) -> None:
        begun = self._begun(one)
        expected = self._player.say(recorded, begun)
        asked = len(self._player.log)
        reply = await self._send(one)
        if reply.status_code != 200:
            raise Broken(f"answered {reply.status_code}: {reply.text[:300]}")
        streamed = reply.headers["content-type"].startswith("text/event-stream")
        got = read_reply(one.path, reply.content, streamed)
        if problem := _difference(expected, got):
            raise Broken(problem)
        self._names.update({old: new for (old, *_), (new, *_) in zip(expected.calls, got.calls, strict=False) if old})
        if len(expected.calls) < len(recorded.calls):
            self._report.ended = f"from request {one.i} on it has several calls in a turn, and the family takes one"
        ids = self._player.log[-1][1]
        said = _said(replace(expected, text=begun + expected.text))
        self._given.append((said, ids))
        if got.calls and not said.reasoning and expected.text.strip() == recorded.text.strip():
            self._called[tuple(id for id, *_ in got.calls)] = said, ids
        if len(self._player.log) > asked:
            self._asked[asked] = one
            self._match(one)
        else:
            self._report.replayed += 1

    def _match(self, one: Recorded) -> None:
        """Compare the history with what was sampled, and both with the prompt that the engine saw. Raises Broken: a
        text is not there, or a result answers another call."""
        prompt, at, history = self._player.log[-1][0], 0, self._history(one)
        text = self._player.renderer.tokenizer.decode(prompt)
        if begun := self._begun(one):
            history = history[:-1]
            if not text.endswith(begun):
                raise Broken(f"the prompt does not end with the beginning of the answer, {begun[-80:]!r}")
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
        self._match_pieces(one, prompt)
        for message in history:
            if message.role != "assistant" and not _shows(text, message):
                raise Broken(f"the prompt is without the {message.role} message {message.content[:80]!r}")
        if _out_of_order([flat(result) for _, result in bodies.results(one.body)], flat(text)):
            raise Broken("the results are not in the order of their calls")

    def _match_pieces(self, one: Recorded, prompt: list[int]) -> None:
        """A turn all of whose calls come back by their ids is unchanged, in however many messages it comes."""
        sent, everything = bodies.calls(one.body), flat(json.dumps(one.body, ensure_ascii=False))
        for names, (said, ids) in self._called.items():
            back = tuple((name, _as_json(arguments)) for id in names if id in sent for name, arguments in [sent[id]])
            whole = back == said.calls and flat(json.dumps(said.text, ensure_ascii=False)[1:-1]) in everything
            if whole and _find(prompt, ids, 0) is None:
                self._report.re_rendered += len(ids)

    async def _drop(self, one: Recorded, place: int) -> None:
        """The client disappears while its answer is being sampled. If it repeats the request, it gets that very
        sample."""
        later = (r for r in self._run[place + 1 :] if r.body == self._run[place].body)
        again = next((r.resp for r in later if isinstance(r.resp, Reply)), CUT_OFF)
        self._player.say(again)
        asked = len(self._player.log)
        with self._player.resting():
            request = asyncio.ensure_future(self._send(one))
            await _until(lambda: len(self._player.log) > asked or request.done())
            if request.done():
                raise Broken(f"answered {request.result().status_code}")
            self._match(one)
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

    def _begun(self, one: Recorded) -> str:
        """The beginning of the answer, where the agent wrote it."""
        try:
            last = self._history(one)[-1]
        except BadRequest:  # which the gateway is about to say
            return ""
        return last.content if last.role == "assistant" else ""

    def _count(self, samples: list[Sample]) -> None:
        """Checks the ledger against the engine's own log, and the rows made from it."""
        from crrl.learning.rows import rows_of
        from crrl.rollout.api import Episode

        report, player = self._report, self._player
        if [(s.prompt_ids, s.ids) for s in samples] != player.log[self._first :]:
            report.problems.append("the ledger is not what the engine was asked and gave")
        branches = Counter(s.branch if s.kind == "main" else s.kind for s in samples if s.branch)
        report.branches = dict(sorted(branches.items()))
        for i, sample in enumerate(samples):
            one = self._asked.get(self._first + i)
            labels = _labels(one) if one is not None else ()
            report.answers += one is not None
            report.labelled += bool(labels)
            if one is not None and labels and sample.kind not in labels:
                report.kinds_differ += 1
                said = " or ".join(labels)
                report.problems.append(f"request {one.i} is {said} by the recording, and {sample.kind} by the gateway")
        name = f"{report.variant}/{report.scenario}"
        _, counts = rows_of(Episode(name, "check", "check", 0, 0, "scored", samples), 1.0)
        report.rows, report.trained_tokens = counts.rows, counts.trained


def _labels(one: Recorded) -> tuple[SampleKind, ...]:
    """The kinds that a request may be of, by the recording; none: it does not say."""
    if one.kind is not None:
        return (one.kind,)
    if one.side is None:
        return ()
    return ("side", "compaction", "subagent") if one.side else ("main",)


def _shows(prompt: str, message: Message) -> bool:
    """Whether a prompt has the text of a message, in its own letters or in JSON's; in system messages without what
    changes from request to request."""
    text = message.content.encode("utf-8", "replace").decode()
    if message.role == "system":
        prompt, text = NONCE.sub("", prompt), NONCE.sub("", text)
    forms = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return any(flat(form) in flat(prompt) for form in forms)


def _out_of_order(results: list[str], prompt: str) -> bool:
    """Of those that can be told apart."""
    places = [prompt.find(text) for text in results if text and prompt.count(text) == 1]
    return places != sorted(places)


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
