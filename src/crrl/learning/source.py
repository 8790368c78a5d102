"""From groups of episodes to the rows of a step: which are compared, which are trained, and which only count.

Lost episodes enter nothing (invariant 2). Groups with fewer than two scored members, or with equal rewards, give no
rows. Their scored episodes still count in the loss's mean, so a step's gradient does not grow as more groups agree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from crrl import registry
from crrl.learning import dynamic_sampling
from crrl.learning.advantages import Advantage
from crrl.learning.api import Row
from crrl.learning.overlong import Overlong
from crrl.learning.pairs import paired
from crrl.learning.rows import CREDIT, RowCounts, row_hash, rows_of
from crrl.learning.staleness import staleness
from crrl.learning.step_metrics import of_episodes
from crrl.learning.step_plan import StepPlan
from crrl.rollout.api import Attempt, Episode, Group, TrainedRow
from crrl.rollout.journal import TRAIN, Journal

if TYPE_CHECKING:
    from crrl.conf.schema import Config
    from crrl.learning.curriculum import Curriculum


class Episodes(Protocol):
    """Runs attempts (`rollout.client`): `start` returns at once, and `keep` gets each episode as it finishes; `wait`
    returns when these are finished."""

    def start(self, attempts: list[Attempt], keep: Callable[[Episode], None]) -> None: ...
    def wait(self, ids: list[str]) -> None: ...


@dataclass(frozen=True)
class StepBatch:
    """The input of one step.

    Args:
        rows: in their recorded order; if empty, the step changes nothing (see `RepairTrainer`).
        episodes: the number of episodes in the loss's mean.
        metrics: numbers about the step (`reward`, `solved`, `groups_no_spread`...), logged with it.
        trained: the journal's record of each row.
    """

    rows: list[Row]
    episodes: int
    metrics: dict[str, float] = field(default_factory=dict)
    trained: list[TrainedRow] = field(default_factory=list)


class RolloutSource:
    """Makes the rows of step k by running its episodes, at most s = `rollout.staleness` steps ahead of the trainer.

    Called with k, when the engine serves version k, it starts the steps up to k + s, waits for those of step k alone,
    and returns its `StepBatch`. So step k always trains on its own groups, whichever finished first, and nothing is
    dropped; s = 0 is synchronous. It does not rerun attempts that are in the journal, and reads the groups back from
    the journal in their planned order, so a step repeated after a resume is trained on the same rows.

    Attributes: `trained`: the journal's records of the latest step's rows.
    """

    def __init__(
        self,
        config: Config,
        curriculum: Curriculum,
        client: Episodes,
        journal: Journal,
        count: Callable[[Episode], None],
    ) -> None:
        self._config, self._plan = config, StepPlan(config, curriculum, journal)
        self._client, self._journal, self._count = client, journal, count
        self._started: dict[int, list[Attempt]] = {}
        self._advantage: Advantage = registry.find("crrl.advantages", config.objective.advantage).load()
        self.trained: list[TrainedRow] = []

    def __call__(self, step: int) -> StepBatch:
        stale, objective = self._config.rollout.staleness, self._config.objective
        for ahead in range(step, max(step, min(step + stale, self._config.trainer.max_steps - 1)) + 1):
            if ahead not in self._started:
                self._started[ahead] = self._start(self._plan.begin(ahead, version=step))
        found, replaced = self._finished(self._started.pop(step)), None
        if objective.dynamic_sampling:
            found, replaced = dynamic_sampling.complete(
                found, has_spread, objective.dynamic_sampling, lambda first, count: self._more(step, first, count)
            )
        overlong = Overlong(self._config.agent.tokens, objective.overlong) if objective.overlong else None
        batch = step_batch(found, self._advantage, objective.credit, overlong, replaced)
        batch.metrics.update(staleness(batch.rows, step, stale))
        self.trained = batch.trained
        return batch

    def attempts(self, step: int) -> list[Attempt]:
        """Those planned."""
        return self._plan.attempts(step)

    def _start(self, attempts: list[Attempt]) -> list[Attempt]:
        finished = self._journal.finished(TRAIN)
        self._client.start([a for a in attempts if a.id not in finished], self._keep)
        return attempts

    def _finished(self, attempts: Sequence[Attempt]) -> list[Group]:
        """The groups of these attempts, once all of them have finished."""
        self._client.wait([a.id for a in attempts])
        groups = dict.fromkeys(a.group for a in attempts)
        found = [Group(group, "", self._journal.group(group)) for group in groups]
        objective = self._config.objective
        if objective.shuffle_rewards:
            found = [shuffled(group, self._config.seed) for group in found]
        return [paired(group, objective.pair) for group in found] if objective.pair else found

    def _more(self, step: int, first: int, count: int) -> list[Group]:
        """Appends groups to the step's plan, number `first` and on, and runs them."""
        return self._finished(self._start(self._plan.append(step, first, count)))

    def _keep(self, episode: Episode) -> None:
        self._journal.add_episode(TRAIN, episode)
        self._count(episode)


def shuffled(group: Group, seed: int) -> Group:
    """The control run's group: its verdicts dealt out at random to its scored members."""
    scored = [episode for episode, _ in scored_members(group)]
    verdicts = [e.verdict for e in scored]
    random.Random(f"shuffle/{seed}/{group.id}").shuffle(verdicts)
    dealt = {e.id: replace(e, verdict=v) for e, v in zip(scored, verdicts, strict=True)}
    return replace(group, episodes=[dealt.get(e.id, e) for e in group.episodes])


def step_batch(
    groups: Sequence[Group],
    advantage: Advantage,
    credit: Mapping[str, float] = CREDIT,
    overlong: Overlong | None = None,
    replaced: Set[str] | None = None,
) -> StepBatch:
    """The rows of a step, in the order of `groups`.

    Metrics: `reward` is the mean over scored and truncated episodes; `groups_*`, but for `groups_replaced`, add up to
    the number of groups; `tokens_*` count sampled tokens; `overlong` is the mean penalty; the others are
    `step_metrics.of_episodes`.

    Args:
        overlong: a penalty, which advantages see with the reward.
        replaced: ids of groups (without spread) whose episodes are in no mean of the loss.
    """
    rows: list[Row] = []
    trained: list[TrainedRow] = []
    counts = RowCounts()
    kinds = {"groups_trained": 0, "groups_no_spread": 0, "groups_too_few": 0}
    for group in groups:
        scored = scored_members(group)
        rewards = [reward for _, reward in scored]
        if len(scored) < 2:
            kinds["groups_too_few"] += 1
            continue
        if not has_spread(group):
            kinds["groups_no_spread"] += 1
            continue
        kinds["groups_trained"] += 1
        shaped = [reward + (overlong(episode) if overlong else 0.0) for episode, reward in scored]
        values = advantage(shaped) if max(shaped) > min(shaped) else [0.0] * len(shaped)
        for (episode, _), value in zip(scored, values, strict=True):
            of_episode, tokens = rows_of(episode, value, credit)
            counts.add(tokens)
            rows += of_episode
            trained += [TrainedRow(episode.id, i, row_hash(row), value) for i, row in enumerate(of_episode)]
    everyone = [episode for group in groups for episode in group.episodes]
    members = [member for group in groups for member in scored_members(group)]
    rewards = [reward for _, reward in members]
    metrics = {
        "reward": sum(rewards) / len(rewards) if rewards else 0.0,
        **of_episodes(everyone),
        **kinds,
        "tokens_left_out": sum(counts.left_out.values()),
    }
    if replaced is not None:
        metrics["groups_replaced"] = len(replaced)
    if overlong and members:
        metrics["overlong"] = sum(overlong(episode) for episode, _ in members) / len(members)
    episodes = sum(len(scored_members(group)) for group in groups if group.id not in (replaced or ()))
    return StepBatch(rows, episodes, {k: float(v) for k, v in metrics.items()}, trained)


def has_spread(group: Group) -> bool:
    """It gives a gradient: two scored members, and not all with one reward."""
    rewards = [reward for _, reward in scored_members(group)]
    return len(rewards) > 1 and max(rewards) > min(rewards)


def scored_members(group: Group) -> list[tuple[Episode, float]]:
    """The episodes with a reward, and that reward: scored and truncated ones, never lost ones."""
    return [(e, e.verdict.reward) for e in group.episodes if e.outcome != "lost" and e.verdict is not None]
