"""The types of a rollout: attempts in, episodes and groups out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from crrl.gateway.api import Sample
from crrl.gateway.ledger import linked
from crrl.rewards.api import Verdict
from crrl.task import Task

Outcome = Literal["scored", "truncated", "lost"]

AT_THE_ENGINE = ("engine_wait", "engine_queued", "engine_held")
"""Of an episode's timings, those that are parts of its `agent`: with a request at the engine; of this before first
tokens; and in gaps between tokens (`gateway/clock.py`)."""


@dataclass(frozen=True)
class Attempt:
    """One episode to run. `id` is stable over retries and resumes; `group` names the attempts compared together
    (evaluation: one group per task). `temperature` 0 is greedy; `top_p`, `top_k` are for evaluations alone. `seed` is
    the episode's own 64-bit seed."""

    id: str
    group: str
    task: Task
    attempt: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Episode:
    """The outcome of an attempt. A `lost` episode has no verdict but a reason; a `truncated` one is scored on what it
    left. `timings`: wall seconds by part (start, agent, patch, judge, and `AT_THE_ENGINE`). `earlier`: if the task
    allows several tries, the verdicts of all but the last; after each, the agent was shown the failures."""

    id: str
    group: str
    task: str
    attempt: int
    seed: int
    outcome: Outcome
    samples: list[Sample] = field(default_factory=list)
    patch: str = ""
    verdict: Verdict | None = None
    earlier: list[Verdict] = field(default_factory=list)
    lost_reason: str = ""
    exit_reason: str = ""
    tries: int = 1
    temperature: float = 1.0
    timings: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # turns, tool_calls, tool_errors, malformed, ...
    agent_output: str = ""  # printed by an agent inside the box: beginning and end
    well_formed: bool = False  # every tool call was valid, an edit applied, and the agent stopped by itself

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", linked(self.samples))  # however it was made: also from the pipe or the disk


@dataclass(frozen=True)
class Group:
    """All attempts at one task that GRPO compares. Complete: one episode per attempt, lost ones included."""

    id: str
    task: str
    episodes: list[Episode]


@dataclass(frozen=True)
class TrainedRow:
    """The journal's record of a trained row: its position among its episode's rows, and its `row_hash`
    (`learning/rows.py`)."""

    episode: str
    index: int
    hash: str
    advantage: float
