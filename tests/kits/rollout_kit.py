"""Attempts at the first tasks of the training split, and a configuration of the rollout worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crrl.conf.load import load_recipe
from crrl.models import model_folder
from crrl.rollout.api import Attempt
from crrl.rollout.config import RolloutConfig
from crrl.tasks.generator.generate import bug_of, generate

COUNT = 32
BUGS = [bug_of("train", 0, i) for i in range(COUNT)]


def attempt(index: int = 0, **changed: Any) -> Attempt:
    values = {"id": f"a{index}", "group": f"g{index}", "attempt": 0, "seed": index, **changed}
    return Attempt(task=values.pop("task", generate("train", 0, index % COUNT)), **values)


def rollout_config(state_dir: Path, engine: str = "unix:unused", *overrides: str) -> RolloutConfig:
    recipe = load_recipe("quickstart", [f"sandbox.state_dir={state_dir}", *overrides])
    return RolloutConfig.from_config(recipe, model_folder("tiny"), engine)
