"""Coding agents: they work in a `Box` and talk to an `Endpoint`, and know nothing of training (`api.Agent`).

| agent | where it runs |
|---|---|
| `answer.AnsweringAgent` | on the host: one question with the files in it, one answer with search/replace blocks |
| `builtin.BuiltinAgent` | on the host, acting through the box; its prompts are in `conf/prompts/` |
| `command.CommandAgent` | in the box: any command line. `conf/agent/` has ready ones (`agent=mini-swe-agent`) |

To bring a command-line agent, write a file like those in `conf/agent/`. To add another kind, write one file with a
class that has what `api.Agent` asks for, made as `make` calls it, and one line: here in `AGENTS`, or in a distribution
of your own (docs/plugins.md). Its further parameters are settings: `agent.options.KEY=VALUE`.
"""

from __future__ import annotations

from pathlib import Path

from crrl import registry
from crrl.agents.api import Agent
from crrl.conf import schema

AGENTS = {
    "answer": "crrl.agents.answer:AnsweringAgent",
    "builtin": "crrl.agents.builtin:BuiltinAgent",
    "command": "crrl.agents.command:CommandAgent",
}


def make(config: schema.Agent, state_dir: Path) -> Agent:
    """The agent of a recipe. `state_dir`: the sandbox's; agents are installed in its `agents` folder.
    Raises UsageError, CrrlError."""
    part = registry.find("crrl.agents", config.name)
    made = part.make(config, state_dir, **part.options(config.options, "agent.options", given=2))
    agent: Agent = part.require(made, Agent)
    return agent
