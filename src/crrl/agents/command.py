"""Any command line as the agent. It runs inside the box, with its files mounted read-only, and takes the gateway, which
it meets at a loopback port, for the API it was made for: no line of it is changed.

What it does with the repository is judged by the patch and the tests alone: its exit code 0 says nothing, and one that
fails, or that the box's limits end, is scored on what it left (invariant 2).

A command is a shell line. `{{ instruction }}`, `{{ model }}`... in it stand for quoted shell variables and never for
the text itself, so that no issue can break out of its word. In `files` and `env` they stand for the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from crrl.agents.api import AgentExit, AgentLimits, Endpoint, WhatNow, finished_within, nothing_more
from crrl.conf import schema
from crrl.conf.templates import QUOTED, placeholders, render
from crrl.errors import CrrlError, LostError, UsageError
from crrl.sandbox import in_use
from crrl.sandbox.api import Box, ExecResult, Mount
from crrl.sandbox.output import Sink
from crrl.task import Task

HOME = "/home/agent"
KEPT_OUTPUT = 1 << 16  # bytes of what the agent printed, its beginning and its end
NO_LIMIT_S = 1e6  # the wall budget, which waiting for the engine is not charged to, is kept from out here
# What agents read, by the API's own names and by those that are common besides. No version check, telemetry or price
# list is to be had in a box: agents that look for them need not wait for a time-out.
ENVIRONMENT = {
    "INSTRUCTION": "{{ instruction }}",
    "ISSUE": "{{ task.issue }}",
    "MODEL": "{{ model }}",
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
    Raises UsageError: a setting that cannot be meant; CrrlError: its files are not there.
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

        Its process is gone when there is more to say: it is started again where it left off, and told the issue and
        then that."""
        exit = await self._once(box, task.issue, endpoint, limits)
        while exit.reason != "time_limit" and (again := await what_now()) is not None:
            later = await self._once(again.box, f"{task.issue}\n\n{again.message}", endpoint, limits)
            exit = replace(later, output=exit.output + later.output)
        return exit

    async def _once(self, box: Box, issue: str, endpoint: Endpoint, limits: AgentLimits) -> AgentExit:
        instruction = self.config.instruction
        values = placeholders(instruction, issue, endpoint.model, endpoint.base_url, endpoint.api_key)
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
        except ValueError as error:  # an instruction that is too long for a command, or holds a NUL byte
            raise LostError("agent_start", str(error)) from error
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running


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
