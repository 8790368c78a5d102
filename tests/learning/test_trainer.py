"""The trainer's contract with whoever drives it: steps in order, bad numbers stop it, log-probs are TRL's."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from learning_kit import VOCAB, Rows, config, make_row, one_step, random_rows, tiny_model, tiny_tokenizer, trainer_of
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel
from trl import GRPOTrainer

from crrl.errors import CrrlError
from crrl.learning import checkpoint
from crrl.learning.api import Row
from crrl.learning.batches import MicroBatch, tensors
from crrl.learning.logprobs import SHARED_MIN, chosen_logprobs, hidden_states, is_plain, shared_length
from crrl.learning.source import StepBatch
from crrl.learning.trainer import RepairTrainer, TrainingError, make_trainer


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def alike_rows(shared: int, lengths: tuple[int, ...] = (40, 33, 33, 27)) -> list[Row]:
    """Attempts at one task: they begin with the same `shared` tokens, some of which are trained, and part there;
    what they have in common again after that is no beginning."""
    rng = random.Random(4)
    begin = [rng.randrange(VOCAB - 2) for _ in range(shared)]
    rows = [make_row(rng, n=n) for n in lengths]
    return [dataclasses.replace(r, ids=[*begin, *r.ids[shared : shared + 2], 7, *r.ids[shared + 3 :]]) for r in rows]


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


# Log-probs ----------------------------------------------------------------------------------------------------


def trls_own(trainer: RepairTrainer, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logps, entropy, _ = GRPOTrainer._get_per_token_logps_and_entropies(
        trainer, trainer.policy, ids, mask, ids.shape[1] - 1, compute_entropy=True
    )
    return logps, entropy


@pytest.mark.parametrize("shared", [0, 20, 22])
def test_log_probs_of_trained_tokens_are_trls(tmp_path: Path, shared: int) -> None:
    made = config()
    made.rollout.temperature = 0.7
    trainer = make_trainer(tiny_model(), tiny_tokenizer(), made, tmp_path, Rows(random_rows), print)
    inputs = tensors(MicroBatch(alike_rows(shared), 1.0, 1.0), VOCAB - 1, torch.device("cpu"))
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    chosen = torch.cat([torch.zeros(4, 1, dtype=torch.long), inputs["tool_mask"]], 1)
    assert (shared_length(ids) >= SHARED_MIN) == bool(shared)
    assert is_plain(trainer.policy)

    logps, entropy = chosen_logprobs(trainer.policy, ids, chosen, 0.7)
    wanted, wanted_entropy = trls_own(trainer, ids, mask)
    trained = chosen[:, 1:].bool()
    torch.testing.assert_close(logps[:, 1:][trained], wanted[trained], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy[:, 1:][trained], wanted_entropy[trained], rtol=1e-5, atol=1e-5)
    assert not logps[~chosen.bool()].any() and not entropy[~chosen.bool()].any()
    assert not entropy.requires_grad

    upstream = torch.rand(logps.shape, generator=torch.Generator().manual_seed(1))
    parameters = list(trainer.policy.parameters())
    got = torch.autograd.grad((logps * upstream).sum(), parameters)
    want = torch.autograd.grad((wanted * upstream[:, 1:] * trained).sum(), parameters)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_rows_share_is_computed_once() -> None:
    """Tokens that go through the model: one beginning, and each row's own rest."""
    model, counted = tiny_model(), []
    model.model.layers[0].mlp.register_forward_hook(lambda _, args, __: counted.append(args[0].shape[:2].numel()))
    ids = torch.tensor([row.ids for row in alike_rows(20, (32, 32, 32))])
    ids[2, 20] = (ids[0, 20] + 1) % VOCAB
    shared = shared_length(ids)
    assert hidden_states(model, ids).shape == (3, 32, 32)
    assert sum(counted) == shared + 3 * (32 - shared) and shared >= 20


@pytest.mark.parametrize("loss", ["dr_grpo", "grpo"])
def test_rows_that_begin_alike_have_the_gradient_they_have_alone(tmp_path: Path, loss: str) -> None:
    batch = StepBatch(alike_rows(24), 5)
    together, of_all = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=10**6)
    alone, of_each = one_step(tmp_path, batch, loss=loss, tokens_per_micro_batch=1)
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=2e-4, atol=2e-6)
    assert max(g.abs().max() for g in alone.values()) > 1e-4
    for name in ("loss", "entropy", "clipped", "trained_tokens", "grad_norm"):
        assert of_all[name] == pytest.approx(of_each[name], rel=1e-4), name


def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    batch = StepBatch(alike_rows(24), 5)
    plain, _ = one_step(tmp_path, batch)
    calls: list[int] = []
    model = tiny_model()
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    saved, _ = one_step(tmp_path, batch, model, gradient_checkpointing=True)
    assert len(calls) == 2  # once forward, once again in the backward pass
    for name in plain:
        torch.testing.assert_close(saved[name], plain[name], rtol=2e-4, atol=2e-6)


def test_a_head_with_a_soft_cap_is_left_to_trl(tmp_path: Path) -> None:
    """There the logits are not `lm_head(hidden states)`."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    capped: PreTrainedModel = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCAB,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=2.0,
            initializer_range=0.3,
            pad_token_id=VOCAB - 1,
            attn_implementation="eager",
            **sizes,
        )
    )
    assert not is_plain(capped)
    trainer = trainer_of(tmp_path, Rows(random_rows), capped)
    ids = torch.randint(0, VOCAB, (2, 24))
    trainer._trained_BT = torch.ones_like(ids)
    logps, _, _ = trainer._get_per_token_logps_and_entropies(capped, ids, torch.ones_like(ids), 23)
    plain = torch.log_softmax(capped(ids).logits[:, :-1], -1).gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(logps, plain, rtol=1e-5, atol=1e-5)
