"""What judging gives, and the protocol of a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from crrl.gateway.api import Sample
from crrl.rewards.signals import Turn
from crrl.task import Task

TestStatus = Literal["passed", "failed", "error", "skipped", "missing"]


@dataclass(frozen=True)
class Trace:
    """What an agent said and did. `said`: its last words. `counts`: its actions, by name (`AgentExit.counts`).
    `commands`: the policy's shell commands, in order. `turns`: what its tool calls were for."""

    said: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class TestResults:
    """One judged run. Every expected id is present (`missing` where nothing was reported: counts as failed).

    `applied`: the patch applied to a fresh checkout. `exploits`: names of attempted exploits. `reason` says
    how the run ended: `complete`, `timeout`, `memory`, `disk`, `no_marker`, `tampered`, `patch_refused`.
    `trace` is the episode's, not the run's.
    """

    __test__ = False

    tests: dict[str, TestStatus]
    applied: bool = True
    reason: str = "complete"
    exploits: list[str] = field(default_factory=list)
    output: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True)
class Verdict:
    """`reward` is the number the policy is trained on; `components` every reward and metric by name."""

    reward: float
    components: dict[str, float] = field(default_factory=dict)
    tests: dict[str, TestStatus] = field(default_factory=dict)
    exploits: list[str] = field(default_factory=list)
    harness_version: str = ""
    solved: bool = False
    reason: str = "complete"
    cached: bool = False
    cpu_s: float = 0.0


class Reward(Protocol):
    """None: not applicable. What its class takes when it is made are settings of the recipe."""

    def __call__(
        self, task: Task, patch: str, results: TestResults | None, samples: Sequence[Sample]
    ) -> float | None: ...
