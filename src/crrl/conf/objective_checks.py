"""Objectives that cannot work, or with settings that would change nothing, are refused (invariant 9).

docs/training.md has the table of what is refused and why; a test tries each of its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from crrl.errors import UsageError

if TYPE_CHECKING:
    from crrl.conf.schema import Config, Objective

WORDS: dict[str, tuple[str, ...]] = {
    "objective.level": ("token", "sequence"),
    "objective.old": ("sampler", "trainer"),
    "objective.correction": ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
AT_LEAST: dict[str, float] = {
    "objective.updates_per_batch": 1,
    "objective.clip_high": 0,
    "objective.every": 0,
    "objective.dynamic_sampling": 0,
}
ROUNDING = 1e-3
"""Clips below it are reached by the difference between two programs' arithmetic alone."""


def check_objective(config: Config) -> None:
    """Raises UsageError: impossible, or a value that is not the default and would change nothing, whoever set it."""
    objective = config.objective
    _check_ranges(objective)
    _check_ratios(objective)
    _check_reference(config)


def _check_ranges(objective: Objective) -> None:
    if objective.correction_bound <= 1:
        raise UsageError(
            f"objective.correction_bound={objective.correction_bound} must be above 1: equal policies have the weight "
            "1.",
            "Write objective.correction_bound=2.",
        )
    if not 0 < objective.mixup <= 1:
        raise UsageError(
            f"objective.mixup={objective.mixup} is a share, above 0 and at most 1.",
            "Write objective.mixup=1 (the reference becomes the policy), or less for a moving average.",
        )
    if not 0 <= objective.overlong < 1:
        raise UsageError(
            f"objective.overlong={objective.overlong} is a share of agent.tokens, from 0 to below 1.",
            "Write objective.overlong=0.2, or 0 for no penalty.",
        )


def _check_ratios(objective: Objective) -> None:
    old, correction, loss = objective.old, objective.correction, objective.loss
    if old == "sampler" and correction != "none":
        raise UsageError(
            f"objective.correction={correction} with objective.old=sampler would correct twice: the ratio is to the "
            "sampler's log-probs already.",
            "Write objective.old=trainer, or objective.correction=none.",
        )
    if old == "trainer" and correction == "none":
        raise UsageError(
            "objective.old=trainer without objective.correction: that the sampler's log-probs were others would be "
            "ignored.",
            "Write objective.correction=token_truncate, or objective.old=sampler.",
        )
    if loss == "vespo" and correction not in ("none", "token_truncate"):
        raise UsageError(
            f"objective.correction={correction} with objective.loss=vespo: its gate takes the product over a row of "
            "truncated token weights.",
            "Write objective.correction=token_truncate.",
        )
    if objective.level == "sequence" and loss in ("dr_grpo", "dapo", "bnpo", "cispo"):
        raise UsageError(
            f"objective.level=sequence with objective.loss={loss}: sums over tokens would weigh a row's one ratio by "
            "the row's length.",
            "Write objective.loss=grpo (that is GSPO: objective=gspo).",
        )
    if objective.level == "sequence" and loss == "vespo":
        raise UsageError(
            "objective.level=sequence would change nothing: objective.loss=vespo is of the sequence already.",
            "Leave objective.level out.",
        )
    for key in ("clip", "clip_high"):
        if getattr(objective, key) == _default(key):
            continue
        if why := _no_clip(objective, key):
            raise UsageError(f"objective.{key} would be ignored: {why}.", f"Leave objective.{key} out.")
        if no_ratio(objective):
            raise UsageError(
                f"objective.{key} would never act: with objective.old=trainer and one update, every ratio is 1.",
                "Write objective.updates_per_batch=2, or objective.old=sampler with a clip of 0.1 or so.",
            )
    smallest = min(objective.clip, objective.clip_high or objective.clip)
    if old == "sampler" and smallest < ROUNDING and not _no_clip(objective, "clip"):
        raise UsageError(
            f"A clip of {smallest:g} with objective.old=sampler would clip what rounding moved: sampler and trainer "
            "are two programs.",
            "Write objective.old=trainer objective.correction=token_truncate objective.updates_per_batch=2.",
        )


def _check_reference(config: Config) -> None:
    objective = config.objective
    for key in ("every", "mixup"):
        if getattr(objective, key) != _default(key) and not objective.beta:
            raise UsageError(
                f"objective.{key} would be ignored: objective.beta=0 has no reference policy.",
                f"Write objective.beta=0.04, or leave objective.{key} out.",
            )
    if objective.mixup != 1 and not objective.every:
        raise UsageError(
            "objective.mixup would be ignored: objective.every=0 is a fixed reference.",
            "Write objective.every=1 (after every step), or leave objective.mixup out.",
        )
    if objective.mixup != 1 and config.trainer.dtype == "bfloat16":
        raise UsageError(
            "objective.mixup below 1 with trainer.dtype=bfloat16: a moving average stands still where its steps are "
            "smaller than bfloat16's.",
            "Write trainer.dtype=mixed, or objective.mixup=1.",
        )


def no_ratio(objective: Objective) -> bool:
    """Every importance ratio is 1 when the loss is computed."""
    return objective.old == "trainer" and objective.updates_per_batch == 1


def _no_clip(objective: Objective, key: str) -> str:
    """Why the loss has no such clip; "": it has one."""
    if objective.loss in ("sapo", "vespo"):
        return f"objective.loss={objective.loss} has no clip"
    if objective.loss == "cispo" and key == "clip":
        return "objective.loss=cispo has an upper bound alone, objective.clip_high"
    return ""


def _default(key: str) -> Any:
    from crrl.conf.schema import Objective

    return {f.name: f.default for f in fields(Objective)}[key]


IGNORED: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
    (
        "objective.length_normaliser",
        lambda c: c.objective.loss != "dr_grpo",
        "it is for objective.loss=dr_grpo",
    ),
    (
        "objective.correction_bound",
        lambda c: c.objective.correction == "none",
        "it is for objective.old=trainer with a correction",
    ),
    *(
        ("objective.clip", lambda c, loss=loss: c.objective.loss == loss, f"objective.loss={loss} has no clip below 1")
        for loss in ("cispo", "sapo", "vespo")
    ),
    *(
        ("objective.clip_high", lambda c, loss=loss: c.objective.loss == loss, f"objective.loss={loss} has no clip")
        for loss in ("sapo", "vespo")
    ),
    (
        "objective.clip",
        lambda c: no_ratio(c.objective),
        "with objective.old=trainer and one update, every ratio is 1",
    ),
    ("objective.every", lambda c: not c.objective.beta, "objective.beta=0 has no reference policy"),
    ("objective.mixup", lambda c: not c.objective.beta, "objective.beta=0 has no reference policy"),
    ("objective.mixup", lambda c: not c.objective.every, "objective.every=0 is a fixed reference"),
)
"""(setting, when it changes nothing, why): refused where a user wrote it, whatever the value."""
