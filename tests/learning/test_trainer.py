"""The trainer's contract with whoever drives it: steps in order, bad numbers stop it."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from learning_kit import VOCAB, Rows, config, make_row, one_step, random_rows, tiny_model, tiny_tokenizer, trainer_of
from transformers import Gemma2Config, Gemma2ForCausalLM

from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.api import Row
from crrl.learning.make_trainer import make_trainer
from crrl.learning.source import StepBatch
from crrl.learning.trainer import TrainingError
from crrl.learning.tree_attention import sharing


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The order of things ------------------------------------------------------------------------------------------


def test_the_engine_rests_while_a_step_computes_and_only_then(tmp_path: Path) -> None:
    """Rollouts need it awake, and so does whoever pushes."""
    resting: list[bool] = [False]
    computed: list[bool] = []
    asked: list[bool] = []

    @contextmanager
    def rest() -> Iterator[None]:
        resting[0] = True
        yield
        resting[0] = False

    def source(step: int) -> StepBatch:
        asked.append(resting[0])
        return random_rows(step)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        asked.append(resting[0])

    model = tiny_model()
    model.base_model.register_forward_hook(lambda *_: computed.append(resting[0]))
    model.get_parameter("model.norm.weight").register_hook(lambda _: computed.append(resting[0]))
    trainer = make_trainer(model, tiny_tokenizer(), config(max_steps=2), tmp_path, source, on_step, resting=rest)
    trainer.train()
    assert len(computed) >= 4 and all(computed) and asked == [False] * 4


def test_each_step_is_asked_for_taken_told_and_then_saved(tmp_path: Path) -> None:
    """`on_step` is where new weights are pushed: they must be there, and a checkpoint must not be."""
    told: list[tuple[int, dict[str, float]]] = []
    events: list[tuple[str, int, list[str]]] = []
    seen: list[dict[str, torch.Tensor]] = []

    def saved() -> list[str]:
        return [p.name for p in checkpoint.checkpoints(tmp_path / "checkpoints")]

    def source(step: int) -> StepBatch:
        events.append(("source", step, saved()))
        return StepBatch([], 8, {"reward": 1.0}) if step == 1 else random_rows(step)

    def on_step(step: int, metrics: dict[str, float]) -> None:
        events.append(("on_step", step, saved()))
        told.append((step, metrics))
        seen.append(weights(trainer.policy))

    made = config(max_steps=3, save_steps=2, learning_rate=1e-3)
    trainer = make_trainer(tiny_model(), tiny_tokenizer(), made, tmp_path, source, on_step)
    trainer.train()
    assert events == [
        *(("source", 0, []), ("on_step", 0, [])),
        *(("source", 1, []), ("on_step", 1, [])),
        *(("source", 2, ["step-2"]), ("on_step", 2, ["step-2"])),
    ]
    assert saved() == ["step-2", "step-3"]  # the last step is saved whatever save_steps says
    assert [step for step, _ in told] == [0, 1, 2]
    assert [metrics["skipped"] for _, metrics in told] == [0, 1, 0]
    assert [metrics["rows"] for _, metrics in told] == [6, 0, 6]
    assert [metrics["reward"] for _, metrics in told] == [0.25, 1.0, 0.25]
    assert all(metrics["learning_rate"] == 1e-3 for _, metrics in told)
    assert not same(seen[0], weights(tiny_model())) and same(seen[0], seen[1]) and not same(seen[1], seen[2])


def test_a_run_that_has_taken_all_its_steps_takes_no_other(tmp_path: Path) -> None:
    trainer_of(tmp_path, Rows(random_rows), max_steps=2).train()
    source = Rows(random_rows)
    model = tiny_model()
    resumed = trainer_of(tmp_path, source, model, checkpoint.latest(tmp_path), max_steps=2)
    resumed.train()
    assert source.taken == [] and same(weights(model), weights(tiny_model()))
    trainer_of(tmp_path, source, model, max_steps=0).train()
    assert source.taken == [] and same(weights(model), weights(tiny_model()))


# Bad numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("loss", {"advantage": float("nan")}),
        ("loss", {"advantage": float("inf")}),
        ("loss", {"weight": float("nan")}),
        # The ratio is infinite. Clipping hides that from the loss, not from the gradient.
        ("gradient norm", {"advantage": 1.0, "logprobs": [float("-inf")] * 30}),
    ],
)
def test_bad_numbers_stop_the_run_before_they_reach_the_weights(tmp_path: Path, what: str, change: dict) -> None:
    def rows(step: int) -> StepBatch:
        good = random_rows(step)
        if step == 1:
            good.rows[3] = dataclasses.replace(make_row(random.Random(9), n=30), **change)
        return good

    after: list[tuple[int, dict[str, torch.Tensor]]] = []
    made = config(max_steps=3, save_steps=1, max_grad_norm=1.0)
    trainer = make_trainer(
        tiny_model(),
        tiny_tokenizer(),
        made,
        tmp_path,
        rows,
        lambda step, _: after.append((step, weights(trainer.policy))),
    )
    with pytest.raises(TrainingError, match=f"The {what} of step 1 is") as error:
        trainer.train()
    assert isinstance(error.value, CrrlError) and "resume" in error.value.remedy
    ((step, weights_then),) = after
    assert step == 0 and same(weights_then, weights(trainer.policy))
    assert [p.name for p in checkpoint.checkpoints(tmp_path / "checkpoints")] == ["step-1"]
    moments = trainer.optimizer.state_dict()["state"]
    assert moments and all(float(state["step"]) == 1 for state in moments.values())


# Rows that begin alike ----------------------------------------------------------------------------------------


def alike_rows() -> list[Row]:
    """Attempts at one task: they begin with the same 24 tokens, some of which are trained, and part there."""
    rng = random.Random(4)
    begin = [rng.randrange(VOCAB - 2) for _ in range(24)]
    rows = [make_row(rng, n=n) for n in (40, 33, 33, 27)]
    return [dataclasses.replace(row, ids=begin + row.ids[24:]) for row in rows]


@pytest.mark.parametrize("loss", ["dr_grpo", "grpo"])
def test_rows_that_begin_alike_have_the_gradient_they_have_alone(tmp_path: Path, loss: str) -> None:
    batch = StepBatch(alike_rows(), 5)
    together, of_all = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=10**6)
    alone, of_each = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=1)
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=2e-4, atol=2e-6)
    assert max(g.abs().max() for g in alone.values()) > 1e-4
    for name in ("loss", "entropy", "clipped", "trained_tokens", "row_tokens", "grad_norm"):
        assert of_all[name] == pytest.approx(of_each[name], rel=1e-4), name
    lengths = [len(row.ids) - 3 for row in batch.rows]  # the last two of each row are context; the last has no label
    assert of_each["computed_tokens"] == sum(lengths) and of_all["computed_tokens"] == sum(lengths) - 3 * 23


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    batch = StepBatch(alike_rows(), 5)
    plain, _ = one_step(tmp_path, batch)
    calls: list[int] = []
    model = tiny_model()
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    saved, _ = one_step(tmp_path, batch, model, gradient_checkpointing=True)
    proof = len(calls) - 2  # of the forest, at the first step
    assert proof > 0 and proof == _calls_of_the_proof()
    for name in plain:
        torch.testing.assert_close(saved[name], plain[name], rtol=2e-4, atol=2e-6)


def _calls_of_the_proof() -> int:
    calls: list[int] = []
    model = tiny_model()
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert sharing(model) == ""
    return len(calls)


def test_a_model_that_cannot_share_is_trained_on_padded_rows_and_says_why(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config_of = Gemma2Config(
        vocab_size=VOCAB, num_key_value_heads=1, head_dim=16, initializer_range=0.3, pad_token_id=VOCAB - 1, **sizes
    )
    capped = Gemma2ForCausalLM._from_config(config_of, attn_implementation="eager")
    notes: list[str] = []
    rows = alike_rows()
    source = Rows(lambda _: StepBatch(rows, 5))
    for budget in (10**6, 1):
        model = copy.deepcopy(capped)
        made = config(beta=0.1, tokens_per_micro_batch=budget)
        trainer = make_trainer(*(model, tiny_tokenizer(), made, tmp_path, source, source.on_step), note=notes.append)
        trainer.train()
    assert notes == ["Rows are padded, each with its own beginning, because of Gemma2ForCausalLM: " + WHY] * 2
    (_, together), (_, alone) = source.taken
    for name in ("loss", "entropy", "kl", "grad_norm"):
        assert together[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-7), name
    assert together["computed_tokens"] == 4 * 38 and alone["computed_tokens"] == together["row_tokens"]


WHY = "it has layers of kind sliding_attention."
