"""The seven objectives of conf/objective/ on three tokens, against numbers worked out by hand.

The policy gives every one of 64 tokens the same probability, whatever came before, so each token's log-prob is -ln 64 =
-4.158883, and the sampler's recorded log-probs make the importance ratios what the case says:

    row a: tokens t1, t2 with ratios 1.5 and 0.9, advantage +1        row b: token t3 with ratio 0.5, advantage -1
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from learning_kit import VOCAB, Gradients, Rows, one_step, random_rows, tiny_model, trainer_of
from transformers import Qwen3ForCausalLM, TrainerCallback

from crrl import registry
from crrl.conf.recipes import FOLDER, ready
from crrl.learning.api import Row
from crrl.learning.source import StepBatch
from crrl.learning.trainer import TrainingError

UNIFORM = -math.log(VOCAB)
T1, T2, T3 = 5, 9, 30  # ids of the trained tokens


def uniform_model() -> Qwen3ForCausalLM:
    """A head of zeros, of its own: uniform, and with a gradient."""
    model = tiny_model()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    return model


def row(name: str, ids: list[int], ratios: list[float], advantage: float) -> Row:
    context = len(ids) - len(ratios)
    logprobs = [0.0] * context + [UNIFORM - math.log(r) for r in ratios]
    mask = [0] * context + [1] * len(ratios)
    return Row(ids, mask, logprobs, [m - 1 for m in mask], advantage, 1.0, name, "g")


def three_tokens() -> StepBatch:
    a = row("a", [1, 2, T1, T2], [1.5, 0.9], 1.0)
    b = row("b", [1, 3, 4, T3], [0.5], -1.0)
    return StepBatch([a, b], episodes=2)


def by_hand(slopes: tuple[float, float, float]) -> torch.Tensor:
    """The gradient of the head, from d loss / d log p of each token: log p's own is (onehot - 1/64) x hidden state."""
    model, gradient = uniform_model(), torch.zeros(VOCAB, 32)
    for ids, place, slope in (
        ([1, 2, T1, T2], 2, slopes[0]),
        ([1, 2, T1, T2], 3, slopes[1]),
        ([1, 3, 4, T3], 3, slopes[2]),
    ):
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, place - 1]
        onehot = torch.nn.functional.one_hot(torch.tensor(ids[place]), VOCAB)
        gradient += slope * torch.outer(onehot - 1 / VOCAB, hidden)
    return gradient


# Name -> the loss, and d loss / d log p of t1, t2, t3: what was clipped has 0.
BY_HAND: dict[str, tuple[float, tuple[float, float, float]]] = {
    # min(1.5, 1.2) = 1.2; 0.9; t3: max(0.5, 0.8) = 0.8. Row a: -(1.2 + 0.9) / 2 = -1.05. Row b: 0.8. Mean of both.
    "grpo": (-0.125, (0.0, -0.9 / 2 / 2, 0.0)),
    # (-1.2 - 0.9 + 0.8) / (2 episodes * 30)
    "dr_grpo": (-1.3 / 60, (0.0, -0.015, 0.0)),
    # The upper clip is 0.28: (-1.28 - 0.9 + 0.8) / 3 tokens
    "dapo": (-0.46, (0.0, -0.3, 0.0)),
    # Ratios of the trainer to itself are 1. Weights exp(trainer - sampler) are 1.5, 0.9, 0.5: row a -(1.5 + 0.9) / 2 =
    # -1.2, row b 0.5. A row's ratio is a geometric mean: each token of row a has half of the row's slope.
    "gspo": (-0.35, (-0.3, -0.3, 0.25)),
    # Weights below 5 times log p: 4.158883 * (1.5 + 0.9 - 0.5) / 3
    "cispo": (2.633959, (-0.5, -0.3, 0.5 / 3)),
    # 4 sigmoid(0.5) = 2.489837, 4 sigmoid(-0.1) = 1.900083, 4 / 1.05 sigmoid(-0.525) = 1.415938
    "sapo": (-0.389511, (-1.410022 / 4, -0.897754 / 4, 0.467070 / 2)),
    # Sums over tokens: (-1.2 - 0.9 + 0.8) / 2 episodes
    "rloo": (-0.65, (0.0, -0.45, 0.0)),
}


def settings_of(name: str) -> dict:
    return yaml.safe_load((FOLDER / "objective" / f"{name}.yaml").read_text())


def test_every_objective_is_here_and_says_all_that_makes_it() -> None:
    """One that left a setting out would mean something else in a recipe that has set it."""
    assert sorted(BY_HAND) == ready("objective")
    common = [set(settings_of(name)) - {"length_normaliser"} for name in BY_HAND]
    assert all(keys == common[0] for keys in common)
    assert {n for n in BY_HAND if "length_normaliser" in settings_of(n)} == {"dr_grpo", "rloo"}
    assert all(("length_normaliser" in settings_of(n)) == (settings_of(n)["loss"] == "dr_grpo") for n in BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_and_its_gradient_on_three_tokens(tmp_path: Path, name: str) -> None:
    loss, slopes = BY_HAND[name]
    # Without learning, a second update of the step has the same loss.
    gradients, metrics = one_step(tmp_path, three_tokens(), uniform_model(), learning_rate=0.0, **settings_of(name))
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(gradients["lm_head.weight"], by_hand(slopes), rtol=1e-4, atol=1e-6)


def test_the_ratio_of_a_sequence(tmp_path: Path) -> None:
    """sqrt(1.5 * 0.9) = 1.161895 is within the clip, whatever its tokens are; row b's is clipped at 0.8."""
    settings = {"loss": "grpo", "level": "sequence", "clip": 0.2, "learning_rate": 0.0}
    gradients, metrics = one_step(tmp_path, three_tokens(), uniform_model(), **settings)
    assert metrics["loss"] == pytest.approx((-1.161895 + 0.8) / 2, rel=1e-5)
    torch.testing.assert_close(
        gradients["lm_head.weight"], by_hand((-1.161895 / 4, -1.161895 / 4, 0.0)), rtol=1e-4, atol=1e-6
    )
    assert (metrics["clipped"], metrics["clipped_low"], metrics["clipped_high"]) == (0.5, 0.5, 0.0)  # of the two rows


def test_the_upper_bound_of_cispo(tmp_path: Path) -> None:
    """It is one of the weight: t1's is 1.2 in place of 1.5, and keeps a gradient."""
    settings = {**settings_of("cispo"), "clip_high": 0.2, "learning_rate": 0.0}
    gradients, metrics = one_step(tmp_path, three_tokens(), uniform_model(), **settings)
    assert metrics["loss"] == pytest.approx(4.158883 * (1.2 + 0.9 - 0.5) / 3, rel=1e-5)
    torch.testing.assert_close(gradients["lm_head.weight"], by_hand((-0.4, -0.3, 0.5 / 3)), rtol=1e-4, atol=1e-6)
    assert metrics["clipped_high"] == pytest.approx(1 / 3) and "clipped_low" not in metrics


CORRECTIONS = {
    # Bound 1.2. Tokens' weights: 1.5, 0.9, 0.5. Rows' weights: 1.5 * 0.9 = 1.35, and 0.5.
    "token_truncate": ((-(1.2 + 0.9) / 2 + 0.5) / 2, (-1.2, -0.9, 0.5), 1 / 3),
    "token_mask": ((-(0.0 + 0.9) / 2 + 0.5) / 2, (0.0, -0.9, 0.5), 1 / 3),
    "sequence_truncate": ((-1.2 + 0.5) / 2, (-1.2, -1.2, 0.5), 2 / 3),
    "sequence_mask": ((0.0 + 0.5) / 2, (0.0, 0.0, 0.5), 2 / 3),
}


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("plugged_in", [False, True])
def test_the_correction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, correction: str, plugged_in: bool) -> None:
    """Whoever computes the loss; the old log-probs are the trainer's, so nothing is clipped."""
    part = registry.Part("crrl.losses", "rows", "test_losses:Clipped", "a distribution")
    monkeypatch.setitem(registry.parts("crrl.losses"), "rows", part)  # type: ignore[arg-type]
    loss, weights, corrected = CORRECTIONS[correction]
    settings = {"old": "trainer", "correction": correction, "correction_bound": 1.2, "learning_rate": 0.0}
    settings["loss"] = "rows" if plugged_in else "grpo"
    gradients, metrics = one_step(tmp_path, three_tokens(), uniform_model(), **settings)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    slopes = (weights[0] / 4, weights[1] / 4, weights[2] / 2)
    torch.testing.assert_close(gradients["lm_head.weight"], by_hand(slopes), rtol=1e-4, atol=1e-6)
    assert metrics["corrected"] == pytest.approx(corrected)
    assert metrics.get("clipped", 0.0) == 0


def test_a_very_unlikely_token_has_a_finite_weight(tmp_path: Path) -> None:
    batch = StepBatch([row("a", [1, 2, T1], [math.exp(200.0)], 1.0)], 1)
    for correction, loss in (("sequence_truncate", -2.0), ("token_mask", 0.0)):
        settings = {"loss": "grpo", "old": "trainer", "correction": correction, "learning_rate": 0.0}
        _, metrics = one_step(tmp_path / correction, batch, uniform_model(), **settings)
        assert metrics["loss"] == pytest.approx(loss) and metrics["corrected"] == 1


def test_metrics_on_three_tokens(tmp_path: Path) -> None:
    _, metrics = one_step(tmp_path, three_tokens(), uniform_model(), loss="grpo")
    wanted = {
        "clipped": 2 / 3,
        "clipped_low": 1 / 3,  # t3
        "clipped_high": 1 / 3,  # t1
        "entropy": 4.158883,
        "drift": (0.405465 + 0.105361 + 0.693147) / 3,
        "log_ratio_p01": -0.693147,  # ln 0.5
        "log_ratio_p50": -0.105361,  # ln 0.9
        "log_ratio_p99": 0.405465,  # ln 1.5
    }
    assert {name: metrics[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert "kl" not in metrics and "corrected" not in metrics


def test_every_metric_is_defined(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    table = text[text.index("## Of a step") : text.index("## Alarms")]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    names = set()
    for name in ("gspo", "grpo"):
        settings = {**settings_of(name), "beta": 0.1}
        names |= one_step(tmp_path / name, three_tokens(), uniform_model(), **settings)[1].keys()
    assert {"kl", "corrected", "clipped_low", "log_ratio_p99"} <= names
    assert [name for name in sorted(names) if name not in re.findall(r"\w+", cells)] == []


# Several updates of one step ------------------------------------------------------------------------------------


def test_updates_of_one_step(tmp_path: Path) -> None:
    """Each is on all rows. Only the step counts for whoever pushes, and for the learning rate."""
    once = tiny_model()
    first, _ = one_step(tmp_path / "1", random_rows(0), once, learning_rate=1e-2)
    second, _ = one_step(tmp_path / "2", random_rows(0), once, learning_rate=1e-2)
    source = Rows(random_rows)
    both = trainer_of(
        tmp_path / "both", source, updates_per_batch=2, learning_rate=1e-2, max_steps=2, schedule="linear"
    )
    both.add_callback(gradients := Gradients())
    both.train()
    assert len(gradients.steps) == 4 and [step for step, _ in source.taken] == [0, 1]
    assert [metrics["learning_rate"] for _, metrics in source.taken] == pytest.approx([1e-2, 0.5e-2])
    norms = [math.sqrt(sum(g.square().sum().item() for g in step.values())) for step in gradients.steps]
    assert source.taken[0][1]["grad_norm"] == pytest.approx((norms[0] + norms[1]) / 2, rel=1e-4)
    for name, wanted in first.items():
        torch.testing.assert_close(gradients.steps[0][name], wanted)
    # Not the optimizer's second step, for which the one-step run had no moments: the gradient at the weights before it.
    for name, wanted in second.items():
        torch.testing.assert_close(gradients.steps[1][name], wanted, rtol=1e-4, atol=1e-6)


class Spoils(TrainerCallback):
    """The first update of a step gives a weight that is not a number."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):  # type: ignore[no-untyped-def]
        model.get_parameter("model.norm.weight").data.fill_(math.nan)


def test_bad_numbers_in_a_later_update_are_told_as_such(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Rows(random_rows), updates_per_batch=2)
    trainer.add_callback(Spoils())
    with pytest.raises(TrainingError, match=r"of step 0 is nan, after 1 of its updates\."):
        trainer.train()


def test_a_tiny_clip_acts_on_what_updates_change_and_not_on_the_sampler(tmp_path: Path) -> None:
    """The sampler's log-probs are far off; the first update clips nothing all the same, later ones do."""
    source = Rows(random_rows)
    trainer = trainer_of(tmp_path, source, learning_rate=1e-2, **settings_of("gspo"))
    trainer.train()
    (_, metrics), *_ = source.taken
    assert metrics["drift"] > 0.1
    assert 0 < metrics["clipped"] <= 0.5  # of two updates


def test_a_step_without_rows_makes_no_update(tmp_path: Path) -> None:
    model = tiny_model()
    source = Rows(lambda _: StepBatch([], 8))
    trainer_of(tmp_path, source, model, updates_per_batch=3, weight_decay=0.5, beta=0.1, every=1).train()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), tiny_model().state_dict().values(), strict=True)
    )
    assert source.taken[0][1]["skipped"] == 1 and "drift" not in source.taken[0][1]
