"""The trainer's gradients against losses written by hand, and its contract with trl 1.16.0."""

from __future__ import annotations

import dataclasses
import inspect
import random
import re
from pathlib import Path

import pytest
import torch
import trl
from learning_kit import Gradients, Rows, make_row, one_step, random_rows, tiny_model, trainer_of
from trl import GRPOTrainer

from crrl import registry
from crrl.conf.schema import Objective
from crrl.errors import CrrlError
from crrl.learning import LOSSES
from crrl.learning.api import Row
from crrl.learning.batches import MicroBatch, micro_batches, tensors, trim
from crrl.learning.source import StepBatch
from crrl.learning.tree import forest

LENGTH = 64


def some_rows(seed: int = 1, weights: tuple[float, ...] = (1.0, 1.0, 0.5, 0.5, 1.0, 0.25)) -> list[Row]:
    rng = random.Random(seed)
    return [make_row(rng, weight=w) for w in weights]


def by_hand(rows: list[Row], loss: str, episodes: int, *, beta: float = 0.0) -> dict[str, torch.Tensor]:
    """The gradient of the whole step's loss, row by row, without padding, batches or TRL."""
    model, reference = tiny_model(), tiny_model(seed=5 if beta else 0)
    total = torch.zeros(())
    tokens = sum(r.weight * sum(r.loss_mask) for r in rows)
    for row in rows:
        ids, mask = torch.tensor([row.ids]), torch.tensor(row.loss_mask[1:], dtype=torch.float32)
        logps = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
        sampled = torch.tensor(row.logprobs[1:])
        ratio = torch.exp(logps - sampled)
        per_token = -torch.min(ratio * row.advantage, ratio.clamp(0.8, 1.2) * row.advantage)
        if beta:
            with torch.no_grad():
                ref = torch.log_softmax(reference(ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None])[:, 0]
            kl = torch.exp(ref - logps) - (ref - logps) - 1
            per_token = per_token + beta * ratio * kl  # the ratio: use_bias_correction_kl
        summed = (per_token * mask).sum() * row.weight
        divisor = {
            "dr_grpo": episodes * LENGTH,
            "grpo": episodes * mask.sum(),
            "bnpo": tokens,
            "dapo": tokens,
        }[loss]
        total = total + summed / divisor
    total.backward()
    return {n: p.grad for n, p in model.named_parameters()}


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=2e-4, atol=2e-6)
    assert max(g.abs().max().item() for g in got.values()) > 1e-4, "nothing was compared"


@pytest.mark.parametrize("loss", ["dr_grpo", "grpo", "bnpo", "dapo"])
def test_the_gradient_is_that_of_the_loss_on_paper(tmp_path: Path, loss: str) -> None:
    rows = some_rows()
    got, metrics = one_step(tmp_path, StepBatch(rows, 8), loss=loss)
    assert_same(got, by_hand(rows, loss, 8))
    assert 0.2 < metrics["clipped"] < 1  # the rows are off-policy enough for clipping to bite


class Clipped:
    """What TRL computes for its own losses, as one that is plugged in."""

    def __init__(self, objective: Objective) -> None:
        self.mean, self.clip = objective.loss, objective.clip

    def __call__(self, logps_BT, old_logps_BT, advantages_B1, trained_BT):  # type: ignore[no-untyped-def]
        ratio = torch.exp(logps_BT - old_logps_BT)
        loss = -torch.min(ratio * advantages_B1, ratio.clamp(1 - self.clip, 1 + self.clip) * advantages_B1)
        return torch.where(trained_BT.bool(), loss, torch.nan)  # what stands elsewhere does not matter


def off_reference(folder: Path, batch: StepBatch, **settings: float | str) -> tuple[dict, dict]:  # type: ignore[type-arg]
    """One step from another policy than the reference, or the KL's gradient would be zero: gradients, metrics."""
    source = Rows(lambda _: batch)
    trainer = trainer_of(folder, source, tiny_model(seed=5), **settings)
    trainer.policy.load_state_dict(tiny_model().state_dict())
    trainer.add_callback(gradients := Gradients())
    trainer.train()
    return gradients.steps[0], source.taken[0][1]


@pytest.mark.parametrize(("mean", "like"), [("rows", "grpo"), ("tokens", "bnpo"), ("step", "dapo")])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_a_loss_that_is_plugged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: str, like: str, beta: float
) -> None:
    """The same mean, KL and metrics as TRL's loss of that kind, whatever the token budget."""
    part = registry.Part("crrl.losses", mean, f"{__name__}:Clipped", "a distribution")
    monkeypatch.setitem(registry.parts("crrl.losses"), mean, part)  # type: ignore[arg-type]
    batch = StepBatch(some_rows(), 8)
    wanted, measured = off_reference(tmp_path / "trl", batch, loss=like, beta=beta)
    for tokens in (10**6, 50):
        got, metrics = off_reference(tmp_path / str(tokens), batch, loss=mean, beta=beta, tokens_per_micro_batch=tokens)
        assert_same(got, wanted)
        for name in ("loss", "entropy", *(["kl"] if beta else [])):
            assert metrics[name] == pytest.approx(measured[name], rel=1e-3, abs=1e-6)
    assert measured.get("kl", 0.0) > 0.01 or not beta


@pytest.mark.parametrize("loss", LOSSES)
def test_the_token_budget_changes_nothing(tmp_path: Path, loss: str) -> None:
    batch = StepBatch(some_rows(), 8)
    whole, _ = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=10**6)
    parts, _ = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=50)
    assert_same(parts, whole)


def test_the_kl_to_the_first_policy(tmp_path: Path) -> None:
    rows = some_rows()
    got, metrics = off_reference(tmp_path, StepBatch(rows, 8), beta=0.3)
    assert_same(got, by_hand(rows, "dr_grpo", 8, beta=0.3))
    assert metrics["kl"] > 0.01


def test_untrained_tokens_have_no_influence(tmp_path: Path) -> None:
    """What is context is read, never learnt; what comes after the last trained token is not even read."""
    rows = some_rows()
    same = []
    for row in rows:
        noise = [lp if m else -3.0 for lp, m in zip(row.logprobs, row.loss_mask, strict=True)]
        tail = 1 + max(i for i, m in enumerate(row.loss_mask) if m)
        ids = row.ids[:tail] + [1] * (len(row.ids) - tail) + [2, 3]
        pad = [0, 0]
        same.append(
            dataclasses.replace(
                row,
                ids=ids,
                logprobs=[*noise, -9.0, -9.0],
                loss_mask=row.loss_mask + pad,
                versions=row.versions + pad,
            )
        )
    got, _ = one_step(tmp_path, StepBatch(same, 8))
    wanted, _ = one_step(tmp_path, StepBatch(rows, 8))
    assert_same(got, wanted)
    masked = [dataclasses.replace(rows[0], loss_mask=[0] * len(rows[0].ids)), *rows[1:]]
    without, _ = one_step(tmp_path, StepBatch(rows[1:], 8))
    got, _ = one_step(tmp_path, StepBatch(masked, 8))
    assert_same(got, without)


def test_a_step_without_rows_changes_nothing(tmp_path: Path) -> None:
    """Neither by momentum nor by weight decay; the step counts."""

    def run(with_empty: bool) -> tuple[dict[str, torch.Tensor], Rows]:
        order = [0, None, 1] if with_empty else [0, 1]
        source = Rows(lambda i: StepBatch([], 8) if order[i] is None else random_rows(order[i]))
        trainer = trainer_of(tmp_path, source, max_steps=len(order), weight_decay=0.5, learning_rate=1e-2)
        trainer.train()
        return trainer.policy.state_dict(), source

    with_empty, source = run(True)
    without, _ = run(False)
    assert [step for step, _ in source.taken] == [0, 1, 2]
    assert source.taken[1][1]["rows"] == 0 and source.taken[1][1]["grad_norm"] == 0
    for name, tensor in without.items():
        assert torch.equal(tensor, with_empty[name]), name
    assert not torch.equal(without["model.norm.weight"], tiny_model().state_dict()["model.norm.weight"])


def test_metrics(tmp_path: Path) -> None:
    batch = StepBatch(some_rows(), 8, {"reward": 0.25, "groups_no_spread": 2.0})
    _, metrics = one_step(tmp_path, batch)
    assert {"loss", "grad_norm", "entropy", "learning_rate", "clipped"} <= metrics.keys()
    assert metrics["reward"] == 0.25 and metrics["groups_no_spread"] == 2
    assert metrics["rows"] == 6 and metrics["trained_tokens"] == sum(sum(r.loss_mask) for r in batch.rows)
    assert 0 < metrics["entropy"] < 4.2


def test_a_loss_that_is_not_finite_stops_the_run_with_the_weights_as_they_were(tmp_path: Path) -> None:
    bad = dataclasses.replace(some_rows()[0], logprobs=[float("nan")] * len(some_rows()[0].ids))
    trainer = trainer_of(tmp_path, Rows(lambda _: StepBatch([bad], 1)))
    with pytest.raises(CrrlError, match="is nan"):
        trainer.train()
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(trainer.policy.state_dict()[name], tensor)


# The contract with trl 1.16.0 -------------------------------------------------------------------------------


def test_trl_reads_from_the_batch_what_we_know_of() -> None:
    """`_compute_loss` of another version may want more; then this fails before a run does."""
    assert trl.__version__ == "1.16.0"
    source = inspect.getsource(GRPOTrainer._compute_loss)
    needed = set(re.findall(r'inputs\["(\w+)"\]', source))
    optional = set(re.findall(r'inputs\.get\("(\w+)"', source)) - needed
    ours = set(tensors(MicroBatch(some_rows(), 1, 1.0, 1.0, 1), 63, torch.device("cpu")))
    ours |= {"ref_per_token_logps"}  # with beta > 0
    assert needed == {
        *("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages"),
        *("num_items_in_batch", "ref_per_token_logps", "importance_sampling_ratio"),
    }
    assert needed - {"importance_sampling_ratio"} <= ours and "old_per_token_logps" in ours
    images = {
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
    }
    images |= {"image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"}
    assert optional - images == {
        "old_per_token_logps",
        "sampling_per_token_logps",
        "importance_sampling_ratio",
    } & (optional)


def test_trl_divides_by_what_we_scale_for() -> None:
    source = inspect.getsource(GRPOTrainer._compute_loss)
    for line in (
        'if self.loss_type in ["grpo", "sapo"]:\n'
        "            loss = ((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()",
        "loss = (per_token_loss * mask).sum() / mask.sum().clamp(min=1.0)",
        "loss = (per_token_loss * mask).sum() / (per_token_loss.size(0) * self.max_completion_length)",
        'elif self.loss_type in ["cispo", "dapo", "vespo"]:',
        "loss = (per_token_loss * mask).sum(-1).mean()",
    ):
        assert line in source


@pytest.mark.parametrize("sharing", [False, True])
def test_micro_batches_keep_every_token_once(sharing: bool) -> None:
    rng = random.Random(3)
    rows = [make_row(rng, weight=rng.choice([1.0, 0.5]), n=rng.randint(8, 60)) for _ in range(40)]
    rows.append(make_row(rng, n=300))
    begin = rows[0].ids[:6]
    rows = [dataclasses.replace(r, ids=begin + r.ids[6:]) if i % 3 else r for i, r in enumerate(rows)]
    micros = micro_batches(rows, "rows", 40, tokens=200, sharing=sharing)
    assert sorted(r.episode for m in micros for r in m.rows) == sorted(r.episode for r in rows)
    for micro in micros:
        assert len({r.weight for r in micro.rows}) == 1
        assert len(micro.rows) == 1 or micro.tokens <= 200
        ids, mask = [r.ids for r in micro.rows], [r.loss_mask for r in micro.rows]
        computed = (
            forest(ids, mask, torch.device("cpu")).ids_N if sharing else torch.zeros(len(ids), max(map(len, ids)))
        )
        assert micro.tokens == computed.numel()
    fullest = sum(m.tokens for m in micros) / len(micros)
    assert fullest > 150  # a micro-batch is not closed before it must be
    assert sum(m.scale for m in micros) == pytest.approx(sum(r.weight for r in rows) / 40)
    assert trim(dataclasses.replace(rows[0], loss_mask=[1] + [0] * (len(rows[0].ids) - 1))) is None
