"""Jobs of Harbor: a folder with a folder for each trial, whose `result.json` is a `TrialResult`.

A trial without rewards is lost, whatever its exception was; one that has them counts, even where it also has an
exception (an agent that ran out of time was judged on what it left). The score is the reward named `reward`, or the
only one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError
from crrl.evaluation.cells import Cell, Results

RESULT = "result.json"


def is_job(path: Path) -> bool:
    return path.is_dir() and any("trial_name" in _read(file) for file in sorted(path.glob(f"*/{RESULT}"))[:1])


def read(path: Path) -> Results:
    """Raises CrrlError: a trial's result is damaged, or has no single reward from 0 to 1."""
    cell = Cell()
    models: set[str] = set()
    conditions: dict[str, set[str]] = {}
    tasks: dict[str, str] = {}
    for file in sorted(path.glob(f"*/{RESULT}")):
        trial = _read(file)
        task = trial.get("task_name")
        if not isinstance(task, str):
            raise CrrlError(f"{file}: it has no task_name.", "It is no trial of Harbor; move it away.")
        cell.add(task, _reward(file, trial))
        if trial.get("task_checksum"):
            tasks[task] = str(trial["task_checksum"])
        models.add(str(((trial.get("agent_info") or {}).get("model_info") or {}).get("name") or ""))
        for key, value in _conditions(trial).items():
            conditions.setdefault(key, set()).add(value)
    measured = {key: ", ".join(sorted(values)) for key, values in conditions.items()}
    return Results("", {"": cell}, measured=measured, tasks=tasks, policy={"policy": ", ".join(sorted(models - {""}))})


def _conditions(trial: dict[str, Any]) -> dict[str, str]:
    """The agent, its budgets and parameters, and the environment's; which model it asked is the policy."""
    agent, config = trial.get("agent_info") or {}, trial.get("config") or {}
    said = {"agent": " ".join(str(word) for word in (agent.get("name"), agent.get("version")) if word)}
    said["timeout_multiplier"] = str(config.get("timeout_multiplier"))
    for group, left_out in (("agent", ("name", "model_name", "env")), ("environment", ("env",))):
        for key, value in (config.get(group) or {}).items():
            if key not in left_out:
                said[f"{group}.{key}"] = json.dumps(value, sort_keys=True)
    return said


def _reward(file: Path, trial: dict[str, Any]) -> float | None:
    rewards = (trial.get("verifier_result") or {}).get("rewards") or {}
    if not rewards:
        return None
    if "reward" not in rewards and len(rewards) > 1:
        raise CrrlError(f"{file}: several rewards, none named `reward`: {', '.join(rewards)}.", "Name one `reward`.")
    value = rewards.get("reward", next(iter(rewards.values())))
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise CrrlError(f"{file}: the reward {value!r:.50} is no number from 0 to 1.", "crrl compares rates.")
    return float(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CrrlError(f"{file} cannot be read: {error}", "Remove the trial, or run it again.") from error
    return found if isinstance(found, dict) else {}
