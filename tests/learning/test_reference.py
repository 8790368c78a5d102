"""The reference policy: which one it is in each step, in numbers by hand; its KL term; and that a resume finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from learning_kit import Rows, random_rows, tiny_model, trainer_of
from test_objectives import T1, row, uniform_model
from transformers import PreTrainedModel

from crrl.conf.schema import Adapter
from crrl.learning import checkpoint
from crrl.learning.lora import trainable
from crrl.learning.reference import AdapterReference, ModelReference
from crrl.learning.source import StepBatch

SEEN = {
    # (every, mixup) -> the reference's weight in steps 0 to 4, where the policy's is 1, 2, 3, 4, 5 and the first is 0.
    (0, 1.0): [0, 0, 0, 0, 0],
    (1, 1.0): [0, 1, 2, 3, 4],  # the step before
    (2, 1.0): [0, 0, 2, 2, 4],
    (3, 1.0): [0, 0, 0, 3, 3],
    (1, 0.25): [0, 0.25, 0.6875, 1.265625, 1.94921875],  # 0.75 * 0.25 + 0.25 * 2 = 0.6875, ...
    (2, 0.5): [0, 0, 1, 1, 2.5],
}


def lora_model() -> PreTrainedModel:
    folder = Path("model")
    if not folder.exists():
        tiny_model().save_pretrained(folder)
    return trainable(folder, Adapter("lora", r=4), seed=7)


def one_weight(model: torch.nn.Module, adapter: str) -> torch.Tensor:
    name = "model.layers.0.mlp.up_proj"
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.get_parameter(f"{name}.lora_B.{adapter}.weight" if adapter else f"{name}.weight").data


@pytest.mark.parametrize(("every", "mixup"), SEEN)
@pytest.mark.parametrize("lora", [False, True])
def test_which_policy_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, mixup: float, lora: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    model = lora_model() if lora else tiny_model()
    one_weight(model, "default" if lora else "").fill_(0)
    seen: list[float] = []

    def source(step: int) -> StepBatch:
        """The policy as an update might have left it."""
        one_weight(trainer.policy, "default" if lora else "").fill_(step + 1)
        reference = trainer._reference
        if lora:
            assert isinstance(reference, AdapterReference)
            held = one_weight(trainer.policy, "reference")
        else:
            assert isinstance(reference, ModelReference)
            held = one_weight(reference.model, "")
        assert held.unique().numel() == 1
        seen.append(held.flatten()[0].item())
        return random_rows(step)

    settings = {"beta": 0.1, "every": every, "mixup": mixup, "learning_rate": 0.0, "max_steps": 5}
    trainer = trainer_of(tmp_path / "run", Rows(source), model, **settings)
    trainer.train()
    assert seen == SEEN[every, mixup]


def test_the_kl_of_two_policies_by_hand(tmp_path: Path) -> None:
    """The policy gives each of 64 tokens 1/64. The reference gives the trained token p: k3 = r - ln r - 1 with
    r = 64 p, times the importance ratio 0.5 (arXiv:2512.02556), and the loss is -0.5 + beta times that."""
    batch = StepBatch([row("a", [1, 2, T1], [0.5], 1.0)], 1)
    model = uniform_model()
    source = Rows(lambda _: batch)
    trainer = trainer_of(tmp_path, source, model, loss="grpo", beta=0.3, learning_rate=0.0)
    reference = trainer._reference
    assert isinstance(reference, ModelReference)
    with torch.no_grad():
        hidden = model.model(torch.tensor([[1, 2]])).last_hidden_state[0, -1]
        reference.model.lm_head.weight[T1] = hidden * 3 / hidden.square().sum()  # a logit of 3, the others 0
    trainer.train()
    (_, metrics), *_ = source.taken
    k3 = 11.732686  # p = e^3 / (e^3 + 63) = 0.241745, r = 15.471698
    assert metrics["kl"] == pytest.approx(0.5 * k3, rel=1e-4)
    assert metrics["loss"] == pytest.approx(-0.5 + 0.3 * 0.5 * k3, rel=1e-4)


def test_under_lora_the_reference_is_a_fixed_policy_and_no_weight_of_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to a whole second model: the same KL, loss and weights after three steps."""
    monkeypatch.chdir(tmp_path)
    source, settings = Rows(random_rows), {"beta": 0.5, "learning_rate": 2e-2, "max_steps": 3}
    trainer = trainer_of(tmp_path / "run", source, lora_model(), **settings)
    first = one_weight(trainer.policy, "reference").clone()
    assert [n for n, p in trainer.policy.named_parameters() if p.requires_grad and "reference" in n] == []
    trainer.train()
    assert torch.equal(one_weight(trainer.policy, "reference"), first)
    assert trainer.policy.active_adapters == ["default"]
    assert source.taken[0][1]["kl"] == pytest.approx(0.0, abs=1e-6) and source.taken[2][1]["kl"] > 1e-3

    as_model = Rows(random_rows)
    other = trainer_of(tmp_path / "whole", as_model, lora_model(), **settings)
    other._reference = ModelReference(other.policy, tiny_model(), other._objective, other.temperature)
    other.train()
    for (_, got), (_, wanted) in zip(source.taken, as_model.taken, strict=True):
        assert (got["kl"], got["loss"]) == pytest.approx((wanted["kl"], wanted["loss"]), rel=1e-4, abs=1e-6)


def adapted(found: Path | None) -> PreTrainedModel:
    return trainable(found or Path("model"), Adapter("lora", r=4), seed=7)


def whole(found: Path | None) -> PreTrainedModel:
    return trainable(found or Path("model"), Adapter("none"), seed=7)


@pytest.mark.parametrize("model", [whole, adapted])
@pytest.mark.parametrize("mixup", [1.0, 0.25])
def test_a_resumed_run_has_the_reference_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Callable[[Path | None], PreTrainedModel], mixup: float
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model().save_pretrained("model")
    settings = {"beta": 0.5, "every": 1, "mixup": mixup, "learning_rate": 1e-2, "save_steps": 2, "max_steps": 4}
    straight = Rows(random_rows)
    trainer_of(tmp_path / "straight", straight, model(None), **settings).train()
    with pytest.raises(KeyError, match="stop"):
        trainer_of(tmp_path / "run", Rows(random_rows, stop_at=2), model(None), **settings).train()
    found = checkpoint.latest(tmp_path / "run")
    assert found is not None
    resumed = Rows(random_rows)
    trainer_of(tmp_path / "run", resumed, model(found), found, **settings).train()
    assert resumed.taken == straight.taken[2:]
    assert resumed.taken[0][1]["kl"] > 1e-4


def test_the_updates_of_one_step_have_one_reference(tmp_path: Path) -> None:
    """It is the policy that began the step before, not what an update within a step left."""
    begun: list[torch.Tensor] = []

    def source(step: int) -> StepBatch:
        reference = trainer._reference
        assert isinstance(reference, ModelReference)
        if step:
            assert torch.equal(one_weight(reference.model, ""), begun[-1])
        begun.append(one_weight(trainer.policy, "").clone())
        return random_rows(step)

    settings = {"beta": 0.1, "every": 1, "updates_per_batch": 3, "learning_rate": 1e-2, "max_steps": 3}
    trainer = trainer_of(tmp_path, Rows(source), **settings)
    trainer.train()
    assert len(begun) == 3 and not torch.equal(begun[0], begun[1])
