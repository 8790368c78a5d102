"""From rewards to the one number: `reward = sum(weight * component)`.

Every registered reward is computed and reported; those with a weight make the reward. A component that is not
applicable (None) counts 0 in the sum and is left out of `components`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crrl.errors import UsageError
from crrl.gateway.api import Sample
from crrl.rewards.api import Reward, TestResults, Verdict
from crrl.rewards.tests import solved
from crrl.task import Task


class Combine:
    """`combine(task, patch, results, samples) -> Verdict`.

    Args:
        rewards: by name. weights: reward name -> weight, of these.
        harness_version: `PytestJudge.version`, recorded in each verdict.
    """

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float], harness_version: str = "") -> None:
        if not weights:
            raise UsageError("No reward has a weight.", "Write rewards.weights.tests=1.0.")
        self.rewards = dict(rewards)
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.harness_version = harness_version

    def __call__(
        self,
        task: Task,
        patch: str,
        results: TestResults,
        samples: Sequence[Sample] = (),
        *,
        cached: bool = False,
    ) -> Verdict:
        values = {name: reward(task, patch, results, samples) for name, reward in self.rewards.items()}
        components = {name: value for name, value in values.items() if value is not None}
        return Verdict(
            reward=sum(weight * components.get(name, 0.0) for name, weight in self.weights.items()),
            components=components,
            tests=dict(results.tests),
            exploits=list(results.exploits),
            harness_version=self.harness_version,
            solved=solved(task, results),
            reason=results.reason,
            cached=cached,
            cpu_s=0.0 if cached else results.cpu_s,
        )
