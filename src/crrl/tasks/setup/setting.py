"""The setting of a task: what its boxes show, and set, besides its repository.

Episodes and judged runs take it from here, so an agent works with the tools that its work is judged with.
"""

from __future__ import annotations

from dataclasses import dataclass

from crrl.sandbox.api import Mount
from crrl.task import Task
from crrl.tasks.setup import toolchains
from crrl.tasks.setup.environments import Environments


@dataclass(frozen=True)
class Setting:
    """`mounts`: toolchains, and what the task's set-up built. `env`: variables of every command in the box."""

    mounts: tuple[Mount, ...]
    env: dict[str, str]


async def setting_of(task: Task, environments: Environments) -> Setting:
    """Builds the task's environment if it is not there yet. Raises CrrlError: the set-up failed."""
    needs, state_dir = task.test.needs, environments.state_dir
    mounts, env = toolchains.mounts(needs, state_dir), toolchains.environment(needs, state_dir)
    if (environment := await environments.of(task)) is not None:
        mounts, env = (*mounts, *environment.mounts), env | environment.variables
    return Setting(mounts, env)
