"""Evaluations that cannot be, or that would tell nothing, are refused (invariant 9)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crrl.errors import UsageError, nearest

if TYPE_CHECKING:
    from crrl.conf.schema import Config

DECODINGS = ("sampled", "greedy")
PRICES = ("input", "output", "hour")
GENERATED_SPLITS = ("rl_instances", "sft_instances", "unseen_families", "impossible")


def check_evaluation(config: Config) -> None:
    wanted = config.evaluation
    if not wanted.decodings or not wanted.splits:
        raise UsageError(
            "evaluation.decodings and evaluation.splits must not be empty.",
            "Write evaluation.decodings=[sampled].",
        )
    for word in wanted.decodings:
        if word not in DECODINGS:
            raise UsageError(f"evaluation.decodings: {word} does not exist.", nearest(word, DECODINGS))
    for word in wanted.splits:
        if word not in GENERATED_SPLITS:
            raise UsageError(f"evaluation.splits: {word} is not a split.", nearest(word, GENERATED_SPLITS))
    if not 0 < wanted.top_p <= 1:
        raise UsageError(
            f"evaluation.top_p={wanted.top_p} is a share of the mass, and must be above 0 and at most 1.",
            "Write evaluation.top_p=0.95; 1.0 draws from all tokens.",
        )
    if wanted.top_k and config.engine.name == "remote":
        raise UsageError(
            "evaluation.top_k does not exist in the API of engine=remote.", "Write evaluation.top_p, or leave it out."
        )
    _check_validation(config)
    for name, price in wanted.prices.items():
        if name not in PRICES:
            raise UsageError(f"evaluation.prices.{name}: there is no such price.", nearest(name, PRICES))
        if not (math.isfinite(price) and price >= 0):
            raise UsageError(f"evaluation.prices.{name}={price} is not a price.", "Write a number of USD, 0 or more.")
    for key, words in (("decodings", wanted.decodings), ("splits", wanted.splits)):
        if len(set(words)) < len(words):
            raise UsageError(f"evaluation.{key} names something twice.", "Name each once.")


def _check_validation(config: Config) -> None:
    wanted, file = config.evaluation, config.corpus.name != "generated"
    if wanted.every and file and config.corpus.held_out < wanted.tasks_per_split + wanted.validation_tasks:
        raise UsageError(
            f"corpus.held_out={config.corpus.held_out} is too few: {wanted.tasks_per_split} tasks for the evaluation "
            f"at the end (evaluation.tasks_per_split), and {wanted.validation_tasks} others for validation.",
            f"Write corpus.held_out={wanted.tasks_per_split + wanted.validation_tasks} or more.",
        )
    if wanted.checkpoint_rule != "best_validation":
        return
    if not wanted.every or wanted.every % config.trainer.save_steps:
        raise UsageError(
            "evaluation.checkpoint_rule=best_validation needs a checkpoint at each validation.",
            f"Write evaluation.every={config.trainer.save_steps}, or another multiple of trainer.save_steps.",
        )
    if config.launch.name != "local":
        raise UsageError(
            f"evaluation.checkpoint_rule=best_validation is not there with launch={config.launch.name}.",
            "Write evaluation.checkpoint_rule=last, and evaluate checkpoints/best with crrl eval.",
        )
