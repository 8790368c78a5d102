"""An objective that cannot work is refused before a run starts, by name, and leaves no run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_plugins import MODULES, PROJECT, crrl, distribution, path  # noqa: F401

from crrl import registry
from crrl.conf import schema
from crrl.errors import CrrlError
from crrl.learning import objective

LOSS = (
    "class B:\n    mean = 'rows'\n    def __init__(self, objective): pass\n    def __call__(self, new, old, adv, on): "
)
OBJECTIVES = [
    ("losses", "class B:\n    mean = 'rows'\n    def __init__(self, objective): 1 / 0", "cannot be made: ZeroDivision"),
    ("losses", "class B:\n    def __init__(self, objective): pass\n    def __call__(self): pass", "has no `mean`"),
    ("losses", LOSS + "return new.nonsense", "fails on a small example: AttributeError"),
    ("losses", LOSS + "return (adv * new).sum()", r"shape \(\) for log-probs of shape \(2, 3\)"),
    ("losses", LOSS + "return [1.0]", "fails on a small example: AttributeError"),
    ("losses", LOSS + "return old * adv", "fails on a small example: RuntimeError"),
    ("losses", LOSS + "return (new - old) ** 0.5", "no finite gradient"),
    ("advantages", "def B(rewards): return [0.0]", "not a finite number for each"),
    ("advantages", "def B(rewards): return [float('nan'), 1.0]", "not a finite number for each"),
    ("advantages", "def B(rewards): return rewards / 2", "fails on the rewards .* TypeError"),
    ("advantages", "B = 3", "fails on the rewards .* TypeError"),
]


@pytest.mark.parametrize(("kind", "code", "says"), OBJECTIVES)
def test_an_objective_that_cannot_work_is_refused_before_a_run_starts(
    path: Path,  # noqa: F811
    kind: str,
    code: str,
    says: str,
) -> None:
    distribution(path, "poor", {f"crrl.{kind}": {"x": "poor_part:B"}}, poor_part=code)
    with pytest.raises(CrrlError, match=rf"(?s)'x' \(poor_part:B, from poor\) .*{says}"):
        objective.require(schema.Objective(**{{"losses": "loss", "advantages": "advantage"}[kind]: "x"}))


def test_every_objective_that_there_is_passes(path: Path) -> None:  # noqa: F811
    distribution(path, PROJECT["name"], PROJECT["entry-points"], objectives=MODULES["objectives.py"])
    for loss in registry.names("crrl.losses"):
        for advantage in registry.names("crrl.advantages"):
            objective.require(schema.Objective(loss=loss, advantage=advantage))


@pytest.mark.timeout(300)
def test_a_loss_that_cannot_be_made_leaves_no_run_behind(tmp_path: Path) -> None:
    site = distribution(tmp_path / "site", "poor", {"crrl.losses": {"x": "poor_part:B"}}, poor_part=OBJECTIVES[0][1])
    told = crrl(site, "train", "quickstart", "objective.loss=x", "run=r", code=1).stderr
    assert "cannot be made: ZeroDivisionError" in told and not (tmp_path / "runs" / "r").exists()
