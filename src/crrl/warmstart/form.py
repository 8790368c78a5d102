"""What the tiny policy is warm-started for: a form of questions and answers, shown by demonstrations.

To add a form, write one file with a class that has what `Form` asks for, and one line in `FORMS`; `crrl sft warmstart
form=NAME base=tiny out=FOLDER` makes a policy of it. Invariant of every form (tested against the real renderer): the
context tokens of a demonstration equal those of a live episode with the same answers.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FORMS = {
    "tools": "crrl.warmstart.demonstrations:Tools",
    "blocks": "crrl.warmstart.blocks:Blocks",
    "implement": "crrl.warmstart.implement:Implement",
    "classify": "crrl.warmstart.classify:Classify",
}

SHARD = 2000
"""Demonstrations of a shard."""

Part = Literal["context", "policy", "mistake"]
"""Who wrote a segment: the environment, the policy, or the policy making a mistake, which is not trained on."""

GENERATION = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""How the renderer `qwen3` opens an answer."""


@dataclass(frozen=True)
class Segment:
    text: str
    part: Part


@dataclass(frozen=True)
class PoolSettings:
    """Args: size: demonstrations; random_share: share of them from families with random edits only; mistakes: share
    that shows recovery from refused edits (form `tools`)."""

    size: int = 128_000
    random_share: float = 0.15
    mistakes: float = 0.3
    seed: int = 1
    processes: int = 2


class Form(Protocol):
    """`whole`: fixed texts, each of which becomes one token. `agent`: settings of `crrl eval` for a policy of this
    form; `recipe`: what `crrl train` trains it with."""

    whole: Sequence[str]
    agent: str
    recipe: str

    def demonstrations(self, settings: PoolSettings, shard: int, count: int) -> list[list[Segment]]:
        """The first `count` of shard number `shard`: a function of the settings and the number."""


def find(name: str) -> Form:
    module, _, attribute = FORMS[name].partition(":")
    made: Form = getattr(importlib.import_module(module), attribute)()
    return made
