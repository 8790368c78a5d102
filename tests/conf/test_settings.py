"""No inert setting (invariant 9): every key is read by something other than the configuration itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import crrl
from crrl.agents.prompts import prompt_sets
from crrl.conf.checks import CHOICES, KINDS, REWARDS
from crrl.conf.schema import Config, WarmstartConfig, keys
from crrl.gateway.api import SampleKind
from crrl.gateway.renderer import KEYS, load_renderer
from crrl.learning.advantages import ADVANTAGES
from crrl.learning.batches import LOSSES
from crrl.learning.rows import CREDIT
from crrl.models import model_folder
from crrl.rewards import REWARDS as REGISTERED
from crrl.sandbox import BACKENDS

PACKAGE = Path(crrl.__file__).parent
SOURCE = "\n".join(f.read_text() for f in PACKAGE.rglob("*.py") if f.parent.name not in ("conf", "cli"))


@pytest.mark.parametrize("key", [k.name for schema in (Config, WarmstartConfig) for k in keys(schema)])
def test_every_setting_is_read(key: str) -> None:
    word = key.rsplit(".", 1)[-1]
    if CHOICES.get(key) and len(CHOICES[key]) == 1:
        return  # a word with one choice: what it names is all there is yet
    assert re.search(rf"\.{word}\b", SOURCE), f"nothing reads {key}"


def test_the_choices_are_what_is_registered() -> None:
    assert set(CHOICES["sandbox.name"]) == set(BACKENDS)
    assert set(CHOICES["objective.advantage"]) == set(ADVANTAGES)
    assert set(CHOICES["objective.loss"]) == set(LOSSES)
    assert set(REWARDS) == set(REGISTERED)
    assert set(KINDS) == set(get_args(SampleKind)) == set(CREDIT)
    assert Config().objective.credit == CREDIT
    assert set(CHOICES["renderer.key"]) == set(KEYS)
    load_renderer(model_folder("tiny"), Config().renderer.key)
    assert {"tiny", "full"} <= set(prompt_sets())
