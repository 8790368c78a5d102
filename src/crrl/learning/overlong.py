"""Overlong shaping: an episode that nears its budget of tokens loses reward, softly (DAPO, arXiv:2503.14476, eq. 13).

The penalty is added to the reward that advantages are made of, and nowhere else: metrics, reports and the verdict keep
the reward as it was judged. Whether a group's rewards differ is decided before the penalty, so length alone never makes
a group's gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from crrl.rollout.api import Episode


@dataclass(frozen=True)
class Overlong:
    """`budget`: of sampled tokens (agent.tokens). `share` (objective.overlong): its last part, over which the penalty
    grows; above 0."""

    budget: int
    share: float

    def __call__(self, episode: Episode) -> float:
        """0 up to budget * (1 - share), then linear in the episode's sampled tokens, and -1 from the budget on."""
        tokens = sum(len(sample.ids) for sample in episode.samples)
        soft = self.share * self.budget
        return max(-1.0, min(0.0, (self.budget - soft - tokens) / soft))
