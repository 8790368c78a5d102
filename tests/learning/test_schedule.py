"""Every update changes the weights: no schedule begins or ends with a rate of zero."""

import pytest
import torch

from crrl.conf.schema import Trainer
from crrl.learning.schedule import make_schedule


def rates(**settings: object) -> list[float]:
    trainer = Trainer(**{"learning_rate": 1.0, **settings})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trainer.learning_rate)
    schedule = make_schedule(optimizer, trainer)
    seen = []
    for _ in range(trainer.max_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_no_update_is_wasted(schedule: str, warmup: int) -> None:
    seen = rates(schedule=schedule, warmup_steps=warmup, max_steps=10)
    assert all(rate > 0 for rate in seen)
    assert seen[: warmup + 1] == pytest.approx([(i + 1) / (warmup + 1) for i in range(warmup + 1)])
    assert seen[warmup:] == sorted(seen[warmup:], reverse=True)


def test_what_they_are() -> None:
    assert rates(schedule="constant", warmup_steps=1, max_steps=4) == [0.5, 1, 1, 1]
    assert rates(schedule="linear", warmup_steps=0, max_steps=4) == pytest.approx([1, 0.75, 0.5, 0.25])
