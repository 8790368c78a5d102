"""The official client libraries, each in a small program of its own language, against a real gateway over a script
(`make test-clients`). What the program saw and what the ledger holds must both be what was sampled.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import STOP, TOOLS, Bench

from crrl.engines.api import Chunk, EngineInfo
from crrl.gateway import Budget, SessionHandle

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]
PROGRAMS = Path(__file__).parent / "programs"
FUNCTION = TOOLS[0]["function"]


@dataclass
class Order:
    """What a program is to do, as its one argument."""

    act: str  # converse | ask | force (a tool) | abandon (a request, then ask it again)
    stream: bool
    base_url: str
    api_key: str
    provider: str = ""  # of the AI SDK
    model: str = "policy"
    system: str = "You repair code."
    questions: list[str] = field(default_factory=lambda: ["Repair stats.py.", "Is that all?"])
    tool: dict[str, Any] = field(
        default_factory=lambda: {"description": FUNCTION["description"], "parameters": FUNCTION["parameters"]}
    )
    retries: int = 0
    timeout_s: float = 60.0
    abort_s: float = 0.3


@dataclass(frozen=True)
class Client:
    """`calls`, `ends`: how the library says that a turn ends with tool calls, or for good. `retries`: it does so by
    itself, and says so to the server. `reasons`: it shows reasoning (the official Node client keeps the last delta of a
    stream's, the AI SDK of responses only a summary)."""

    name: str
    program: str
    calls: str
    ends: str
    provider: str = ""
    retries: bool = True
    reasons: tuple[bool, bool] = (True, True)  # whole, streamed

    @property
    def node(self) -> bool:
        return self.program.endswith(".mjs")

    @property
    def anthropic(self) -> bool:
        return "anthropic" in (self.program.partition("_")[0], self.provider)


CLIENTS = [
    Client("python-openai-chat", "openai_chat.py", "tool_calls", "stop"),
    Client("python-openai-responses", "openai_responses.py", "completed", "completed"),
    Client("python-anthropic", "anthropic_messages.py", "tool_use", "end_turn"),
    Client("node-openai-chat", "openai_chat.mjs", "tool_calls", "stop", reasons=(True, False)),
    Client("node-openai-responses", "openai_responses.mjs", "completed", "completed"),
    Client("node-anthropic", "anthropic_messages.mjs", "tool_use", "end_turn"),
    Client("ai-sdk-openai", "ai_sdk.mjs", "tool-calls", "stop", "openai", False, reasons=(False, False)),
    Client("ai-sdk-openai-compatible", "ai_sdk.mjs", "tool-calls", "stop", "compatible", False),
    Client("ai-sdk-anthropic", "ai_sdk.mjs", "tool-calls", "stop", "anthropic", False),
]


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def do(client: Client, stream: bool, request: pytest.FixtureRequest):
    """Has the client's program do something in a session; what it reports."""
    if client.node:
        folder: Path = request.getfixturevalue("node_programs")
        words = [str(folder / "node_modules" / ".bin" / "node"), str(folder / client.program)]
    else:
        words = [sys.executable, str(PROGRAMS / client.program)]

    async def run(act: str, handle: SessionHandle, **settings: Any) -> dict[str, Any]:
        values = {"base_url": handle.base_url, "api_key": handle.api_key, "provider": client.provider, **settings}
        order = json.dumps(asdict(Order(act, stream, **values)))
        process = await asyncio.create_subprocess_exec(
            *words, order, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0 and out, err.decode()
        return json.loads(out.splitlines()[-1])

    return run


def call(cmd: str) -> str:
    return f'<tool_call>\n{{"name": "shell",  "arguments": {{ "cmd":"{cmd}" }}}}\n</tool_call>'


EVERYTHING = "Repaired: 'ä' → \\\"b\\\" 🎉."
# The policy's answers; of each: what a client must see of it (text, reasoning, commands).
TURNS: list[tuple[str, str, str, list[str]]] = [
    (f"<think>\nA look.\n</think>\n\nI look. \n{call('cat stats.py')}", "I look.", "A look.", ["cat stats.py"]),
    (f"{call('sed -i s/a/b/ stats.py')}\n{call('cat missing')}", "", "", ["sed -i s/a/b/ stats.py", "cat missing"]),
    (EVERYTHING, EVERYTHING, "", []),
    (f"<think>\nOne more.\n</think>\n\n{call('ls')}", "", "One more.", ["ls"]),
    ("That is all.", "That is all.", "", []),
]


async def test_converses(client: Client, stream: bool, do, bench: Bench) -> None:
    """Two questions, reasoning, tool calls, two of them at once, one that fails: every turn comes back as it was
    sampled, so the session is one row."""
    answers = [text + STOP for text, *_ in TURNS]
    await bench.start(*answers)
    said = await do("converse", bench.gateway.open("a"))
    assert "error" not in said, said
    for turn, (_, text, reasoning, cmds), answer in zip(said["turns"], TURNS, answers, strict=True):
        assert (turn["text"].strip(), turn["calls"]) == (text, cmds)
        assert turn["reasoning"].strip() == reasoning or not client.reasons[stream]
        assert turn["finish"] == (client.calls if cmds else client.ends)
        assert turn["tokens"] == len(bench.ids(answer))
    # The Node SDK of Anthropic first tries to leave the conversation with the server, once for each of its runners.
    assert said["sent"] == len(TURNS) + (2 if client.name == "node-anthropic" else 0)

    record = await bench.gateway.close("a")
    assert [sample.ids for sample in record.samples] == [bench.ids(answer) for answer in answers]
    assert [sample.prompt_ids for sample in record.samples] == [r.prompt_ids for r in bench.engine.requests]
    assert [sample.branch for sample in record.samples] == ["first", "", "", "", ""]
    assert [sample.parent for sample in record.samples[1:]] == [sample.id for sample in record.samples[:-1]]
    assert {(sample.kind, sample.delivery) for sample in record.samples} == {("main", "delivered")}
    prompt = bench.renderer.tokenizer.decode(record.samples[-1].prompt_ids)
    ran, failed = prompt.index("ran sed"), prompt.index("missing", prompt.index("ran sed"))
    assert ran < failed and "no such file" in prompt[failed:]  # in the order of the calls, whatever the client's
    assert "You repair code." in prompt and "Is that all?" in prompt


async def test_an_abandoned_answer_is_kept_for_the_same_request(client: Client, stream: bool, do, bench: Bench) -> None:
    text = "one two three four five six seven eight nine ten"
    await bench.start(text + STOP, step=1, delay=0.05)
    said = await do("abandon", bench.gateway.open("a"))
    assert said["abandoned"] and said["abandoned"] != text and said["text"] == text, said
    assert len(bench.engine.requests) == 1 and said["sent"] == 2
    record = await bench.gateway.close("a")
    assert [(s.delivery, s.finish, s.ids) for s in record.samples] == [("delivered", "stop", bench.ids(text + STOP))]


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.retries], ids=lambda client: client.name, indirect=True)
@pytest.mark.parametrize("stream", [False], ids=["whole"], indirect=True)
async def test_a_library_that_tries_again_gets_the_same_answer(do, bench: Bench) -> None:
    await bench.start(f"Slow.{STOP}", step=1, delay=0.5)
    said = await do("ask", bench.gateway.open("a"), retries=9, timeout_s=0.5)
    assert said.get("text") == "Slow." and said["sent"] > 1, said
    assert len(bench.engine.requests) == 1


async def test_a_forced_call_is_refused_by_name(do, bench: Bench) -> None:
    await bench.start(f"No.{STOP}")
    said = await do("force", bench.gateway.open("a"), retries=2)
    assert said["status"] == 400 and "'tool_choice' is not supported" in said["error"], said
    assert said["sent"] == 1 and not bench.engine.requests


async def test_a_full_context_is_told_in_the_apis_words(client: Client, do, bench: Bench) -> None:
    await bench.start()
    said = await do("ask", bench.gateway.open("a", Budget(turns=0)), retries=2)
    words = "prompt is too long: " if client.anthropic else "This model's maximum context length"
    assert said["status"] == 400 and words in said["error"] and "0 turns" in said["error"], said
    assert said["sent"] == 1


@pytest.mark.parametrize("stream", [False], ids=["whole"], indirect=True)
async def test_a_wrong_key_is_told(do, bench: Bench) -> None:
    await bench.start()
    bare = f"{bench.gateway.base_url}/v1"
    said = await do("ask", bench.gateway.open("a"), base_url=bare, api_key="sk-other", retries=2)
    assert said["status"] == 401 and "No session has this API key." in said["error"] and said["sent"] == 1, said


@pytest.mark.parametrize("stream", [False], ids=["whole"], indirect=True)
async def test_the_key_alone_names_the_session(do, bench: Bench) -> None:
    await bench.start(f"Here.{STOP}")
    said = await do("ask", bench.gateway.open("a"), base_url=f"{bench.gateway.base_url}/v1")
    assert said.get("text") == "Here.", said


async def test_an_engine_that_fails_is_told_and_not_asked_again(client: Client, do, bench: Bench) -> None:
    await bench.start()  # a script without answers fails
    said = await do("ask", bench.gateway.open("a"), retries=1)
    assert said["status"] == 503 and "The engine failed: " in said["error"] and "has no answer left" in said["error"], (
        said
    )
    assert said["sent"] == (1 if client.retries else 2)  # the AI SDK does not read `x-should-retry`
    assert len(bench.engine.requests) == 1


class Dying:
    """Fails behind its first token."""

    def __init__(self, token: int) -> None:
        self._token = token

    async def info(self) -> EngineInfo:
        return EngineInfo(4096, 0, "", 1 << 18)

    async def generate(self, request):
        yield Chunk([self._token], [-1.0], [0])
        await asyncio.sleep(0.1)
        raise RuntimeError("out of memory")

    async def cancel(self, id: str) -> None: ...

    def forget(self, scope: str) -> None: ...


async def test_an_engine_that_fails_in_the_middle_is_no_short_answer(do, bench: Bench) -> None:
    await bench.start_with(Dying(bench.ids("one")[0]))
    said = await do("ask", bench.gateway.open("a"))
    assert "text" not in said and "The engine failed: out of memory" in said["error"], said
    record = await bench.gateway.close("a")
    assert record.engine_failed == "out of memory" and [s.delivery for s in record.samples] == ["dropped"]
