"""Each alarm is raised by what it is for, once, and by nothing else."""

import pytest

from crrl.report.alarms import RULES, WINDOW, alarms

HEALTHY = {
    "reward": 0.5,
    "solved": 0.5,
    "reward/process": 0.3,
    "entropy": 0.3,
    "drift": 0.01,
    "groups_trained": 6.0,
    "groups_no_spread": 2.0,
    "groups_too_few": 0.0,
    "episodes_scored": 60.0,
    "episodes_truncated": 4.0,
    "episodes_lost": 0.0,
}
SICK = {
    "reward_collapsed": {"reward": 0.1},
    "entropy_gone": {"entropy": 0.01},
    "drift": {"drift": 0.5},
    "no_spread": {"groups_trained": 0.0, "groups_no_spread": 8.0},
    "episodes_lost": {"episodes_lost": 30.0},
    "shaping_traded": {"solved": 0.3, "reward/process": 0.6},
}


def test_there_is_a_case_for_every_rule() -> None:
    assert set(SICK) == {rule.name for rule in RULES} and all(rule.cause for rule in RULES)


@pytest.mark.parametrize("name", SICK)
def test_an_alarm_is_raised_when_it_begins_and_again_after_it_ceased(name: str) -> None:
    well, sick = [HEALTHY] * 8, [{**HEALTHY, **SICK[name]}] * 8
    assert alarms(well) == []
    raised = alarms(well + sick + well + sick)
    assert {alarm.name for alarm in raised} == {name}
    first, second = (alarm.step for alarm in raised)
    assert 8 < first <= 8 + WINDOW and 24 < second <= 24 + WINDOW
    assert all(any(c.isdigit() for c in alarm.says) for alarm in raised), "with the numbers that were seen"


def test_a_short_run_and_steps_without_numbers_raise_nothing() -> None:
    assert alarms([]) == []
    assert alarms([{**HEALTHY, **SICK["no_spread"]}] * (WINDOW - 1)) == []
    assert alarms([{"reward": 0.0}] * 20) == [], "a policy that never solved anything has nothing to lose"


def test_a_reward_that_varies_much_has_not_collapsed() -> None:
    """Of a run that learnt: 0.82 over its best five steps, then 0.41."""
    rewards = [0.4, 0.9, 0.48, 0.51, 1.08, 0.63, 0.87, 0.84, 0.66, 1.01, 0.33, 0.17, 0.7, 0.62, 0.21]
    assert alarms([{**HEALTHY, "reward": reward} for reward in rewards]) == []
    assert [alarm.name for alarm in alarms([{**HEALTHY, "reward": r - 0.6 * (i > 7)} for i, r in enumerate(rewards)])]


def test_shaping_that_rises_with_what_it_is_for_is_no_trade() -> None:
    both = {**HEALTHY, "solved": 0.8, "reward/process": 0.9}
    fell = {**HEALTHY, "solved": 0.3, "reward/process": 0.3}
    assert alarms([HEALTHY] * 8 + [both] * 8) == alarms([HEALTHY] * 8 + [fell] * 8) == []


def test_entropy_that_shrank_to_a_tenth_is_told_too() -> None:
    falling = [{**HEALTHY, "entropy": 2.0 if i < WINDOW else 0.1} for i in range(3 * WINDOW)]
    (alarm,) = alarms(falling)
    assert alarm.name == "entropy_gone" and "0.100 nats a token, 2.000 at the start" in alarm.says
