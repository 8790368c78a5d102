"""A scripted agent on a real session, which knows from its own side what it sent, got and used.

The engine's version rises with every sample, so a token names the sample that it came from. The agent does to its
history what real agents do: it re-serialises arguments, pads and drops what does not matter, edits, forgets, resamples,
loses answers, asks on the side, compacts, and changes its system prompt.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json

from gateway_kit import STOP, TOOLS, make_tokenizer

from crrl.engines.scripted import ScriptedEngine
from crrl.gateway.api import Ask, Budget, Sample
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import load_renderer
from crrl.gateway.session import SamplingPolicy, Session

RENDERER = load_renderer(make_tokenizer(), "qwen3")
OPS = ["append", "again", "retry", "drop", "cancel", "rewrite", "discard", "edit", "back", "side", "compact", "prompt"]
TITLE = [Message("system", "You are a title generator."), Message("user", "title?")]
COMPACT = "You are performing a CONTEXT CHECKPOINT COMPACTION."


def answer_text(n: int) -> str:
    """Content, reasoning and calls in all mixtures; every fifth answer is cut off by a limit."""
    text = f"<think>\nplan {n}\n</think>\n\n" if n % 3 == 0 else ""
    text += f" answer {n}\n"
    if n % 4 == 1:
        text += f'\n<tool_call>\n{{"name": "shell",  "arguments": {{ "cmd":"{n}", "t":  1.0 }}}}\n</tool_call>'
    return text + ("" if n % 5 == 0 else STOP)


class TreeAgent:
    def __init__(self) -> None:
        def script(_: list[int]) -> list[int]:
            self.engine.version += 1
            return RENDERER.tokenizer.encode(answer_text(self.engine.version))

        self.engine = ScriptedEngine(script, context=1 << 20, step=4)
        self.system = Message("system", "s")
        self.history: list[tuple[Message, int | None]] = [(Message("user", "start"), None)]  # message, its version
        self.last: tuple[Message, int] | None = None
        self.edits = 0
        self.ids: dict[int, list[int]] = {}  # by version: what was sampled
        self.kinds: dict[int, str] = {}
        self.answers: dict[str, list[tuple[int, int]]] = {}  # request -> (time, version) of what arrived
        self.continued: dict[int, int] = {}  # version -> when the agent first sent it back
        self.passed: dict[str, int] = {}  # request -> when the agent last went on from it without an answer
        self.time = 0

    async def open(self) -> None:
        info = await self.engine.info()
        budget = Budget(tokens=1 << 20, turns=1 << 20)
        self.session = Session("e", budget, 7, 1.0, self.engine, info, RENDERER, SamplingPolicy())

    async def close(self) -> list[Sample]:
        return (await self.session.close()).samples

    async def ask(self, history: list[tuple[Message, int | None]], kind: str = "main", how: str = "deliver") -> None:
        self.time += 1
        messages = [message if version is None else self.noisy(message) for message, version in history]
        tools = TOOLS if kind == "main" else None
        turn = await self.session.ask(Ask(messages, tools, retry=how == "retry"))
        for i, (message, _) in enumerate(history):
            if message.role != "assistant":
                self.passed[key(kind, history[:i])] = self.time
        at = 0
        for i, (_, version) in enumerate(history):
            if version is not None:
                said = self.ids[version]
                if i == len(history) - 1 and said[-1] in RENDERER.stop_ids:
                    said = said[:-1]  # a turn that comes last is gone on from
                at = position(turn.prompt_ids, said, at)
                self.continued.setdefault(version, self.time)
        if how == "cancel":
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if turn.task is not None and not turn.done:
                turn.task.cancel()
        if turn.task is not None:
            await asyncio.gather(turn.task, return_exceptions=True)
        if turn.ids:
            self.ids[turn.versions[0]], self.kinds[turn.versions[0]] = turn.ids, kind
        if how in ("drop", "cancel") or not turn.whole:
            return
        turn.delivered = True
        arrived = self.answers.setdefault(key(kind, history), [])
        if turn.versions[0] not in [version for _, version in arrived]:
            arrived.append((self.time, turn.versions[0]))
        if kind == "main":
            self.last = turn.answer, turn.versions[0]

    def noisy(self, message: Message) -> Message:
        """The same turn, as agents send it back."""
        calls = [Call(c.name, json.dumps(json.loads(c.arguments), indent=1), f"id{self.time}") for c in message.calls]
        reasoning = message.reasoning if self.time % 2 else ""
        folded = f"<think>{message.reasoning}</think>" if message.reasoning and self.time % 4 == 2 else ""
        return Message("assistant", f"{folded}\n{message.content} ", calls, reasoning)

    async def do(self, op: str) -> None:
        here = [(self.system, None), *self.history]
        if op in ("drop", "cancel", "retry"):
            return await self.ask(here, how=op)
        if op == "side":
            return await self.ask([(message, None) for message in TITLE], "side")
        self.edits += 1
        if op == "compact":
            await self.ask([*here, (Message("user", COMPACT), None)], "compaction")
            self.history, self.last = [(Message("user", f"start, summed up {self.edits}"), None)], None
        elif op == "prompt":
            self.system = Message("system", f"s, day {self.edits}")
        elif op == "append" and self.last is not None:
            role = "tool" if self.last[0].calls else "user"
            self.history = [*self.history, self.last, (Message(role, f"next {self.edits}"), None)]
        elif op == "rewrite":  # it goes on from its own version of the answer
            mine = Message("assistant", f"edited {self.edits}")
            self.history = [*self.history, (mine, None), (Message("user", f"next {self.edits}"), None)]
        elif op == "discard":  # it complains of the answer, which it throws away
            self.history = [*self.history, (Message("user", f"no {self.edits}"), None)]
        elif op == "edit":  # it changes what it said before
            message = dataclasses.replace(self.history[-1][0], content=f"other {self.edits}")
            self.history = [*self.history[:-1], (message, None)]
        elif op == "back" and len(self.history) > 2:  # it forgets its last two messages
            self.history = self.history[:-2]
            if self.history[-1][0].calls:  # calls without results cannot be gone on from
                self.history = self.history[:-1]
        await self.ask([(self.system, None), *self.history])

    def used(self) -> dict[int, list[int]]:
        """By the rule as documented: what the agent went on from, and what it did not turn away from: by asking again,
        by going on from another answer, or from the request alone."""
        used = {}
        for request, answers in self.answers.items():
            for time, version in answers:
                again = any(later > time for later, _ in answers)
                another = any(self.continued.get(other, 0) > time for _, other in answers)
                without = self.passed.get(request, 0) > time
                if version in self.continued or not (again or another or without):
                    used[version] = self.ids[version]
        return used


def key(kind: str, history: list[tuple[Message, int | None]]) -> str:
    return repr((kind, [message for message, _ in history]))


def position(ids: list[int], part: list[int], start: int) -> int:
    """Where `part` ends in `ids`, at or after `start`. A sampled turn that is not there was re-rendered."""
    for i in range(start, len(ids) - len(part) + 1):
        if ids[i : i + len(part)] == part:
            return i + len(part)
    raise AssertionError("a sampled turn came back unchanged, and is not in the prompt as it was sampled")


async def play(ops: list[str]) -> TreeAgent:
    agent = TreeAgent()
    await agent.open()
    for op in ops:
        await agent.do(op)
    return agent
