"""Coding agents: they work in a `Box` and talk to an `Endpoint`, and know nothing of training (`api.Agent`).

`builtin` is ours, with the prompts of `conf/agent/`. To add an agent, write one file here with a class that has
`run(box, task, endpoint, limits) -> AgentExit` and `close()`, and one line in `make`.
"""

from __future__ import annotations

from crrl.agents.api import Agent
from crrl.errors import UsageError, nearest


def make(name: str, prompts: str) -> Agent:
    """The agent called `name` with a prompt set. Raises UsageError."""
    from crrl.agents.builtin import BuiltinAgent
    from crrl.agents.prompts import load_prompts

    if name != "builtin":
        raise UsageError(f"agent.name={name} does not exist.", nearest(name, ["builtin"]))
    return BuiltinAgent(load_prompts(prompts))
