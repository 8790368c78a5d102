"""Coding agents: they work in a `Box` and talk to an `Endpoint`, and know nothing of training (`api.Agent`).

| agent | where it runs |
|---|---|
| `builtin.BuiltinAgent` | out here, acting through the box; its prompts are in `conf/prompts/` |
| `command.CommandAgent` | in the box: any command line. `conf/agent/` has ready ones (`agent=mini-swe-agent`) |

To bring a command-line agent, write a file like those in `conf/agent/`. To add another kind, write one file here with a
class that has what `api.Agent` asks, and one line in `make`.
"""

from __future__ import annotations

from pathlib import Path

from crrl.agents.api import Agent
from crrl.conf import schema
from crrl.errors import UsageError, nearest


def make(config: schema.Agent, state_dir: Path) -> Agent:
    """The agent of a recipe. `state_dir`: the sandbox's; agents are installed in its `agents` folder.
    Raises UsageError, CrrlError."""
    from crrl.agents.builtin import BuiltinAgent
    from crrl.agents.command import CommandAgent
    from crrl.agents.prompts import load_prompts

    if config.name == "builtin":
        return BuiltinAgent(load_prompts(config.prompts))
    if config.name == "command":
        return CommandAgent(config, state_dir)
    raise UsageError(f"agent.name={config.name} does not exist.", nearest(config.name, ["builtin", "command"]))
