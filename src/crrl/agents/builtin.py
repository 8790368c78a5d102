"""The built-in agent: a loop over two tools, `shell(cmd)` and `edit`, until the policy says it is done. The second has
two forms, one setting apart: `edit(path, old, new)`, or `edit(blocks)` with search/replace blocks (`search_replace/`).

It runs on the host and acts only through `Box.exec`, `read` and `write`. It talks to its endpoint with the `openai`
client, streaming, and knows nothing of training. The episode's limits apply: near one the policy gets one warning, in a
tool result; at one the agent stops. An impossible tool call gets an error as its result, and never raises an exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crrl.agents.api import AgentExit, AgentLimits, Endpoint, WhatNow, nothing_more
from crrl.agents.chat import FAILURES, Chat, connections, ended_by
from crrl.agents.edits import refusal
from crrl.agents.prompts import EDITS, Prompts, load_prompts, parameters
from crrl.agents.search_replace import in_box
from crrl.agents.search_replace.parse import parse
from crrl.agents.unreadable import unreadable
from crrl.conf import schema
from crrl.errors import LostError, UsageError, nearest
from crrl.sandbox.api import Box, ExecResult, Mount
from crrl.task import Task

LARGEST_FILE = 4 << 20  # bytes of the largest file that `edit` accepts


class ToolError(Exception):
    """The policy gets this in place of a tool's result."""


class MalformedCall(ToolError):
    """The call itself is wrong: no such tool, arguments missing or not JSON."""


class BuiltinAgent:
    """One object serves any number of episodes at once; they share its connections.

    Args:
        config: the agent's settings, of which this reads `prompts`. state_dir: for agents that have files.
        edit: the form of the tool `edit`: `strings` or `blocks`.
    """

    inside = False
    mounts: Sequence[Mount] = ()

    def __init__(self, config: schema.Agent, state_dir: Path, edit: str = "strings") -> None:
        if edit not in EDITS:
            raise UsageError(f"agent.options.edit={edit} does not exist.", nearest(edit, EDITS))
        self.prompts, self._edit = load_prompts(config.prompts), edit
        self._tools = self.prompts.tools(edit)
        self._http = connections()

    async def close(self) -> None:
        await self._http.aclose()

    async def run(
        self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: WhatNow = nothing_more
    ) -> AgentExit:
        """Raises LostError: the box or the endpoint is gone."""
        episode = _Episode(box, limits, self.prompts, Chat(self._http, endpoint), parameters(self._edit))
        messages = self.prompts.messages(task.issue)
        try:
            reason, detail = await episode.run(messages, self._tools, what_now)
        except FAILURES as error:
            reason, detail = ended_by(error)
        return AgentExit(reason, detail=detail, counts=episode.counts, output=episode.said)  # type: ignore[arg-type]


class _Episode:
    """The state of one run: the conversation's budgets, counts and tools."""

    def __init__(
        self, box: Box, limits: AgentLimits, prompts: Prompts, chat: Chat, parameters: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.box, self.limits, self.prompts, self.chat, self.parameters = box, limits, prompts, chat, parameters
        self.tokens = 0
        self.said = ""  # its latest words
        self.warned: set[str] = set()
        self.counts = dict.fromkeys(("turns", "tool_calls", "tool_errors", "malformed", "edits"), 0)

    async def run(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], what_now: WhatNow
    ) -> tuple[str, str]:
        """(reason, detail) for why it ended."""
        while True:
            if (reason := self._used_up()) is not None:
                return reason, ""
            answer = await self.chat.ask(messages, self.limits.tokens - self.tokens, tools)
            self.said = answer.content
            self.counts["turns"] += 1
            self.tokens += answer.tokens
            messages.append(answer.message())
            if answer.finish == "length":
                return "token_limit", ""
            if answer.calls:
                for call in answer.calls:
                    messages.append(await self._answer_call(call))
                messages[-1]["content"] = self._warned(messages[-1]["content"])
            elif (why := unreadable(answer.content, tuple(self.parameters))) is not None:
                self.counts["malformed"] += 1
                messages.append({"role": "user", "content": self._warned(why)})
            elif (again := await what_now()) is not None:
                self.box = again.box
                messages.append({"role": "user", "content": self._warned(again.message)})
            else:
                return "finished", ""

    # Budgets ----------------------------------------------------------------------------------------------------

    def _left(self) -> dict[str, float]:
        return {
            "turns": self.limits.turns - self.counts["turns"],
            "tokens": self.limits.tokens - self.tokens,
            "seconds": self.limits.wall_s - self.limits.spent_s(),
        }

    def _used_up(self) -> str | None:
        reasons = {"turns": "turn_limit", "tokens": "token_limit", "seconds": "time_limit"}
        return next((reasons[budget] for budget, left in self._left().items() if left <= 0), None)

    def _warned(self, text: str) -> str:
        """A tool result, followed by one warning for each budget that is nearly used up."""
        warnings = self.prompts.warnings
        marks = {"turns": warnings.turns_left, "tokens": warnings.tokens_left, "seconds": warnings.seconds_left}
        lines = [text] if text else []
        for budget, left in self._left().items():
            if 0 < left <= marks[budget] and budget not in self.warned:
                self.warned.add(budget)
                lines.append(f"warning: {left:.0f} {budget} left")
        return "\n".join(lines)

    # The tools --------------------------------------------------------------------------------------------------

    async def _answer_call(self, call: dict[str, Any]) -> dict[str, Any]:
        self.counts["tool_calls"] += 1
        try:
            content = await self._carry_out(call["function"]["name"], call["function"]["arguments"])
        except ToolError as error:
            self.counts["malformed" if isinstance(error, MalformedCall) else "tool_errors"] += 1
            content = f"error: {error}"
        return {"role": "tool", "tool_call_id": call["id"], "content": cut(content, self.limits.output_chars)}

    async def _carry_out(self, name: str, raw: str) -> str:
        arguments = checked_arguments(name, raw, self.parameters)
        if name == "shell":
            return await self._shell(arguments["cmd"])
        if "blocks" in arguments:
            return await self._edit_blocks(arguments["blocks"])
        return await self._edit(arguments["path"], arguments["old"], arguments["new"])

    async def _shell(self, cmd: str) -> str:
        timeout_s = max(0.1, min(self.limits.command_s, self._left()["seconds"]))
        # Keep more than is shown: the end of an output matters as much as its beginning.
        limit = max(65536, 4 * self.limits.output_chars)
        result = await self.box.exec(["bash", "-c", cmd], timeout_s=timeout_s, output_limit=limit)
        if result.reason == "lost":
            raise LostError("sandbox_died", result.output[-500:])
        return told(result, timeout_s)

    async def _edit(self, path: str, old: str, new: str) -> str:
        """Replace the one occurrence of `old`; an empty `old` makes a new file."""
        try:
            if not old:
                await self._create(path, new)
            else:
                await self._replace(path, old, new)
        except FileNotFoundError:
            raise ToolError(f"no such file {path}") from None
        except UnicodeDecodeError:
            raise ToolError(f"{path} is not text") from None
        except (OSError, ValueError) as error:
            raise ToolError(getattr(error, "strerror", None) or str(error)) from None
        self.counts["edits"] += 1
        return "ok"

    async def _edit_blocks(self, text: str) -> str:
        """What can be applied stands, whatever is wrong with the rest."""
        parsed = parse(text)
        if not parsed.blocks and not parsed.faults:
            raise MalformedCall("there is no search/replace block in `blocks`")
        files, unread = await in_box.read(self.box, (block.path for block in parsed.blocks), LARGEST_FILE)
        applied, refused = await in_box.put(self.box, [b for b in parsed.blocks if b.path not in unread], files)
        self.counts["edits"] += applied
        if not (faults := [*parsed.faults, *unread.values(), *refused]):
            return "ok"
        done = [f"{applied} of {applied + len(faults)} blocks were applied."] if applied else []
        raise ToolError("\n".join([*done, *(fault.message for fault in faults)]))

    async def _create(self, path: str, new: str) -> None:
        try:
            await self.box.read(path, limit=1)
        except FileNotFoundError:
            return await self.box.write(path, new.encode())
        raise ToolError(f"{path} exists; give the text to replace as `old`")

    async def _replace(self, path: str, old: str, new: str) -> None:
        data = await self.box.read(path, limit=LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ToolError(f"{path} is too large to edit; use the shell")
        text = data.decode()
        if (why := refusal(text, path, old, new)) is not None:
            raise ToolError(why)
        await self.box.write(path, text.replace(old, new).encode())


def checked_arguments(name: str, raw: str, parameters: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """A call's arguments. Raises MalformedCall, in words that help the policy to do better."""
    if name not in parameters:
        raise MalformedCall(f"there is no tool {name!r}; the tools are {', '.join(parameters)}")
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedCall("arguments are not valid JSON") from None
    if not isinstance(arguments, dict):
        raise MalformedCall("arguments are not a JSON object")
    for parameter in parameters[name]:
        if not isinstance(arguments.get(parameter), str):
            raise MalformedCall(f"{name} needs {parameter!r}, a string")
    if unknown := sorted(set(arguments) - set(parameters[name])):
        raise MalformedCall(f"{name} has no parameter {unknown[0]!r}")
    return arguments


def told(result: ExecResult, timeout_s: float) -> str:
    """The policy's view of a command: its output, then how it ended unless with exit code 0."""
    ended = {
        "timeout": f"killed after {timeout_s:.0f} s",
        "output": "killed: too much output",
        "memory": "killed: out of memory",
        "disk": "killed: the disk is full",
    }.get(result.reason, f"exit code {result.code}" if result.code else "")
    return "\n".join(part for part in (result.output.rstrip("\n"), ended) if part)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of the text itself: its beginning and its end, and how much is missing between."""
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 2, limit // 2
    missing = len(text) - head - tail
    return f"{text[:head]}\n[{missing} characters left out]\n{text[len(text) - tail :]}"
