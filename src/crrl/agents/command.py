"""Any command line as the agent, unmodified. It runs inside the box, with its files mounted read-only, and finds the
gateway at a loopback port, in place of the API that it was made for.

Only the patch and the tests count: its exit code 0 says nothing, and an agent that fails, or that the box's limits end,
is scored on its patch so far (invariant 2).

A command is a shell line. In it `{{ instruction }}`, `{{ model }}`... become quoted shell variables, never the text
itself, so no issue can break out of its word. In `files` and `env` they become the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crrl.agents.api import AgentExit, AgentLimits, Endpoint, WhatNow, ended, finished_within, nothing_more
from crrl.conf import schema
from crrl.conf.templates import QUOTED, placeholders, render
from crrl.errors import CrrlError, LostError, UsageError
from crrl.sandbox import in_use
from crrl.sandbox.api import Box, ExecResult, Mount
from crrl.sandbox.output import Sink
from crrl.task import Task

HOME = "/home/agent"
KEPT_OUTPUT = 1 << 16  # bytes of the agent's output to keep, from its beginning and its end
NO_LIMIT_S = 1e6  # the host enforces the wall budget, which does not count time at the engine
# The variables that agents read, under the API's own names and other common ones. A box offers no version check,
# telemetry or price list, and these keep agents from waiting for a time-out.
ENVIRONMENT = {
    "INSTRUCTION": "{{ instruction }}",
    "ISSUE": "{{ task.issue }}",
    "MODEL": "{{ model }}",
    "CONTEXT": "{{ context }}",
    "OPENAI_BASE_URL": "{{ base_url }}",
    "OPENAI_API_BASE": "{{ base_url }}",
    "OPENAI_API_KEY": "{{ api_key }}",
    "OPENAI_MODEL": "{{ model }}",
    "ANTHROPIC_BASE_URL": "{{ base_url.removesuffix('/v1') }}",
    "ANTHROPIC_API_KEY": "{{ api_key }}",
    "ANTHROPIC_MODEL": "{{ model }}",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
    "CI": "1",
}


class CommandAgent:
    """One object serves any number of episodes at once.

    Args:
        config: the agent's settings. state_dir: a mount whose source is relative lies in `state_dir/agents`.
    Raises UsageError: an impossible setting; CrrlError: its files are missing.
    """

    inside = True

    def __init__(self, config: schema.Agent, state_dir: Path) -> None:
        self.mounts: Sequence[Mount] = [_mount(text, config, state_dir) for text in config.mounts]
        self.line = render("agent.command", config.command, QUOTED)
        self.config = config

    async def close(self) -> None:
        return None

    async def run(
        self, box: Box, task: Task, endpoint: Endpoint, limits: AgentLimits, what_now: WhatNow = nothing_more
    ) -> AgentExit:
        """Raises LostError: the box is gone, or the agent could not be started for a cause on our side.

        When there is another try, its process is gone: it starts again where it left off, with the issue and the new
        message."""
        exit = await self._once(box, task.issue, endpoint, limits)
        while exit.reason != "time_limit" and (again := await what_now()) is not None:
            later = await self._once(again.box, f"{task.issue}\n\n{again.message}", endpoint, limits)
            exit = replace(later, output=exit.output + later.output)
        return exit

    async def _once(self, box: Box, issue: str, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        address = {"base_url": endpoint.base_url, "api_key": endpoint.api_key}
        values = placeholders(self.config.instruction, issue, model=endpoint.model, context=endpoint.context, **address)
        given = {**ENVIRONMENT, **self.config.env}
        env = {name: render(f"agent.env.{name}", text, values) for name, text in given.items()}
        for path, text in self.config.files.items():
            await _write(box, path, render(f"agent.files {path}", text, values))
        sink = Sink(KEPT_OUTPUT)
        running = asyncio.create_task(
            box.exec(["bash", "-c", self.line], env=env, timeout_s=NO_LIMIT_S, on_output=sink.add)
        )
        try:
            if not await finished_within(running, limits.wall_s, limits.spent_s):
                return AgentExit("time_limit", output=sink.text())
            return _exit(running.result(), sink.text())
        except ValueError as error:  # the instruction is too long for a command, or contains a NUL byte
            raise LostError("agent_start", str(error)) from error
        finally:
            await ended(running)


def _mount(text: str, config: schema.Agent, state_dir: Path) -> Mount:
    source, colon, target = text.rpartition(":")
    if not colon or not source or not target.startswith("/"):
        raise UsageError(f"agent.mounts: {text!r} is not SOURCE:TARGET.", "Write e.g. /srv/my-agent:/opt/agent.")
    path = state_dir / "agents" / source
    if not path.exists():
        remedy = f"Install it: mkdir -p {path} && cd {path} && {config.install}" if config.install else "Make it."
        raise CrrlError(f"agent.mounts: {path} does not exist.", remedy)
    in_use.use_mount(path, state_dir)
    return Mount(path, target)


async def _write(box: Box, path: str, text: str) -> None:
    """A file of the agent's, below its HOME; nothing of the agent's runs yet."""
    line = 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"'
    result = await box.exec(["/bin/sh", "-c", line, "sh", f"{HOME}/{path}", text])
    if result.code != 0:
        raise LostError("agent_start", f"agent.files {path}: {result.reason} {result.output[-500:]}")


def _exit(result: ExecResult, output: str) -> AgentExit:
    if result.reason == "lost":
        raise LostError("sandbox_died", output[-500:])
    if result.reason == "exit" and result.code == 0:
        return AgentExit("finished", 0, output=output)
    detail = f"exit code {result.code}" if result.reason == "exit" else f"ended by the box's limit: {result.reason}"
    return AgentExit("error", result.code, detail, output=output)
