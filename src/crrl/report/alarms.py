"""Alarms: what in a run's numbers usually means that it goes wrong, each with its likely cause and what to do.

A function of the journal's steps alone, so a resumed run has those of before. An alarm is raised when its condition
begins to hold over the last `WINDOW` steps, and again only after it ceased to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance

WINDOW = 5
COLLAPSE = 0.5  # of the best mean reward so far
CHANCE = 4.0  # standard errors; the best of many windows is high by chance
ENTROPY = 0.02  # nats a token
SHRUNK = 0.1  # of the entropy of the first steps
DRIFT = 0.1  # nats a token
NO_SPREAD = 0.8  # of the groups
LOST = 0.2  # of the episodes
SHAPING = ("habits", "process", "blocks", "format", "reasoning", "file_match")  # rewards for how, not for what
TRADED = 0.1  # by which such a reward rises, and the share of solved tasks falls

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """`step`: updates taken when it was raised. `says`: what was seen; `cause`: the likely one, and what to do."""

    name: str
    step: int
    says: str
    cause: str


@dataclass(frozen=True)
class _Rule:
    """`holds`: (all steps up to now) -> what was seen, "" if nothing is wrong."""

    name: str
    holds: Callable[[Sequence[Metrics]], str]
    cause: str


def alarms(steps: Sequence[Metrics]) -> list[Alarm]:
    """All alarms of a run, oldest first. `steps`: the metrics of its updates, in order."""
    return [alarm for taken in range(1, len(steps) + 1) for alarm in raised(steps[:taken])]


def raised(steps: Sequence[Metrics]) -> list[Alarm]:
    """Those that the last of these steps raised."""

    def said(rule: _Rule, taken: int) -> str:
        return rule.holds(steps[:taken]) if taken >= WINDOW else ""

    taken = len(steps)
    now = [(rule, said(rule, taken)) for rule in RULES]
    return [Alarm(rule.name, taken, says, rule.cause) for rule, says in now if says and not said(rule, taken - 1)]


def _values(steps: Sequence[Metrics], name: str) -> list[float]:
    return [step[name] for step in steps if name in step]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _collapsed(steps: Sequence[Metrics]) -> str:
    rewards = _values(steps, "reward")
    windows = [rewards[i : i + WINDOW] for i in range(len(rewards) - WINDOW + 1)]
    if not windows:
        return ""
    last, top = windows[-1], max(windows, key=_mean)
    best, now = _mean(top), _mean(last)
    error = ((variance(top) + variance(last)) / WINDOW) ** 0.5  # of their difference
    fell = best > 0 and now < COLLAPSE * best and best - now > CHANCE * error
    return f"mean reward {now:.2f}, after {best:.2f} at its best" if fell else ""


def _entropy(steps: Sequence[Metrics]) -> str:
    values = _values(steps, "entropy")
    first, now = _mean(values[:WINDOW]), _mean(values[-WINDOW:])
    if len(values) < WINDOW or (now >= ENTROPY and now >= SHRUNK * first):
        return ""
    return f"entropy {now:.3f} nats a token, {first:.3f} at the start"


def _drift(steps: Sequence[Metrics]) -> str:
    values = _values(steps, "drift")
    now = _mean(values[-WINDOW:])
    return f"sampler and trainer differ by {now:.3f} nats a token" if len(values) >= WINDOW and now > DRIFT else ""


def _no_spread(steps: Sequence[Metrics]) -> str:
    recent = steps[-WINDOW:]
    alike = sum(_values(recent, "groups_no_spread"))
    groups = alike + sum(_values(recent, "groups_trained")) + sum(_values(recent, "groups_too_few"))
    return f"{alike:.0f} of {groups:.0f} groups had equal rewards" if groups and alike > NO_SPREAD * groups else ""


def _lost(steps: Sequence[Metrics]) -> str:
    recent = steps[-WINDOW:]
    lost = sum(_values(recent, "episodes_lost"))
    every = lost + sum(_values(recent, "episodes_scored")) + sum(_values(recent, "episodes_truncated"))
    return f"{lost:.0f} of {every:.0f} episodes were lost" if every and lost > LOST * every else ""


def _traded(steps: Sequence[Metrics]) -> str:
    """Against the steps with the most solved."""
    windows = [steps[i : i + WINDOW] for i in range(len(steps) - WINDOW + 1)]
    solved = [_mean(_values(window, "solved")) for window in windows]
    best = max(range(len(windows)), key=lambda i: solved[i], default=0)
    if not windows or solved[best] - solved[-1] < TRADED:
        return ""
    for name in SHAPING:
        then, now = (_mean(_values(windows[i], f"reward/{name}")) for i in (best, -1))
        if now - then >= TRADED:
            return f"{name} {then:.2f} -> {now:.2f}, while solved {solved[best]:.2f} -> {solved[-1]:.2f}"
    return ""


RULES = (
    _Rule(
        "reward_collapsed",
        _collapsed,
        "Updates are too large, or a reward was gamed and the policy with it. Look at episodes of the best and the "
        "last steps in the report; lower trainer.learning_rate and start from the checkpoint before.",
    ),
    _Rule(
        "entropy_gone",
        _entropy,
        "The policy samples nearly the same each time, so groups lose their spread and nothing is explored. Raise "
        "rollout.temperature, or lower trainer.learning_rate.",
    ),
    _Rule(
        "drift",
        _drift,
        "Weights did not arrive whole, the engine computes in another precision, or samples are stale. Compare "
        "push_error with its bound; use one dtype in engine and trainer.",
    ),
    _Rule(
        "no_spread",
        _no_spread,
        "Tasks are too easy or too hard for this policy, and groups without spread give no gradient. Change the mix of "
        "tasks (corpus.rl_share, your task file), or raise objective.group_size.",
    ),
    _Rule(
        "episodes_lost",
        _lost,
        "The machine, not the policy: lost episodes enter nothing, but cost their time. The causes are in "
        "summary.json (lost_tries) and in the run's log.txt.",
    ),
    _Rule(
        "shaping_traded",
        _traded,
        "The policy learns a reward for how it works at the cost of what it is for. Read episodes of the last step in "
        "the report; lower that reward's weight, or leave it out from here on.",
    ),
)
