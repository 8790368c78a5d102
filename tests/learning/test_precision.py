"""What the trainer counts in: near float32's numbers, pushes proved to what rounding allows, the rest refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from learning_kit import config, make_row, one_step, tiny_model
from test_push import Tampered, updated
from test_trainer import alike_rows

from crrl.conf.checks import check
from crrl.conf.load import load_recipe
from crrl.conf.schema import Trainer
from crrl.engines.device import DTYPES, has_bfloat16
from crrl.engines.local import LocalEngine
from crrl.errors import UsageError
from crrl.learning import precision
from crrl.learning.push import BOUND, PushError, bound_in, push_and_prove
from crrl.learning.source import StepBatch

CPU = torch.device("cpu")
ON_GPU = torch.cuda.is_available()
bfloat16 = pytest.mark.skipif(not has_bfloat16(CPU), reason="this CPU would emulate bfloat16")


@bfloat16
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
def test_gradients_are_near_those_in_float32(tmp_path: Path, dtype: str) -> None:
    batch = StepBatch(alike_rows(), 5)
    exact, of_exact = one_step(tmp_path, batch)
    weights = precision.weights_dtype(Trainer(dtype=dtype))
    assert weights == {"mixed": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    rounded, of_rounded = one_step(tmp_path, batch, tiny_model().to(weights), dtype=dtype)
    assert of_rounded["computed_tokens"] == of_exact["computed_tokens"]  # as a forest, too
    assert {g.dtype for g in rounded.values()} == {weights}
    assert of_rounded["entropy"] == pytest.approx(of_exact["entropy"], rel=0.02)
    assert of_rounded["entropy"] != of_exact["entropy"]
    for name, gradient in exact.items():
        likeness = torch.cosine_similarity(rounded[name].float().flatten(), gradient.flatten(), 0)
        assert likeness > 0.98, name


@pytest.fixture
def engines() -> Iterator[list[LocalEngine]]:
    made: list[LocalEngine] = []
    yield made
    for engine in made:
        engine.close()


@bfloat16
@pytest.mark.parametrize(
    ("engine_dtype", "dtype"), [("bfloat16", "float32"), ("float32", "mixed"), ("bfloat16", "mixed")]
)
async def test_a_push_in_bfloat16_is_proved_to_what_rounding_allows(
    engines: list[LocalEngine], engine_dtype: str, dtype: str
) -> None:
    for kind in (LocalEngine, Tampered):
        engines.append(kind(tiny_model(), "hash", context=128, dtype=DTYPES[engine_dtype]))
    good, bad = engines
    bound = await bound_in(good, tiny_model(), precision.computing(Trainer(dtype=dtype)))
    assert BOUND < bound < 0.5
    gap = await push_and_prove(good, updated(), 1, bound, precision.computing(Trainer(dtype=dtype)))
    assert 1e-5 < gap <= bound
    bad.tensor = "model.layers.0.self_attn.q_proj.weight"  # type: ignore[attr-defined]
    with pytest.raises(PushError, match="is not the trainer's policy"):
        await push_and_prove(bad, updated(), 1, bound, precision.computing(Trainer(dtype=dtype)))


async def test_more_than_rounding_is_no_bound(engines: list[LocalEngine]) -> None:
    engines.append(LocalEngine(tiny_model(), "hash", context=128))
    with pytest.raises(PushError, match="With equal weights"):
        await bound_in(engines[0], updated(size=0.5), nullcontext())


@pytest.mark.parametrize(
    ("settings", "says", "write"),
    [
        (["trainer.dtype=bfloat16"], "moments of trainer.optimizer=adamw", "trainer.dtype=mixed"),
        (["trainer.dtype=half"], "trainer.dtype=half does not exist", ""),
        (["trainer.optimizer=adam8"], "trainer.optimizer=adam8 does not exist", "adamw_8bit"),
        (["engine.dtype=fp8"], "engine.dtype=fp8 does not exist", ""),
        (["engine.device=gpu"], "engine.device=gpu does not exist", "cuda"),
        (["engine.device=cuda:x"], "engine.device=cuda:x does not exist", "cuda"),
    ],
)
def test_what_no_machine_can_do_is_refused_with_the_settings(settings: list[str], says: str, write: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        check(load_recipe("quickstart", settings))
    assert write in error.value.remedy


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
@pytest.mark.parametrize("optimizer", precision.EIGHT_BITS)
def test_an_optimizer_of_gpus_is_refused_without_one(optimizer: str) -> None:
    with pytest.raises(UsageError, match="computes on a CUDA GPU") as error:
        precision.require(Trainer(optimizer=optimizer))
    assert "trainer.optimizer=adamw" in error.value.remedy


@pytest.mark.skipif(has_bfloat16(CPU) or ON_GPU, reason="bfloat16 can be computed in here")
@pytest.mark.parametrize("dtype", ["mixed", "bfloat16"])
def test_bfloat16_is_not_emulated(dtype: str) -> None:
    with pytest.raises(UsageError, match="has no bfloat16 instructions"):
        precision.require(Trainer(dtype=dtype))


@pytest.mark.skipif(not ON_GPU, reason="8-bit optimizers need a CUDA GPU")
@pytest.mark.parametrize("optimizer", precision.EIGHT_BITS)
def test_an_8_bit_optimizer_takes_a_step(tmp_path: Path, optimizer: str) -> None:
    pytest.importorskip("bitsandbytes")
    batch = StepBatch([make_row(random.Random(i)) for i in range(6)], 8)
    model = tiny_model().to("cuda", torch.bfloat16)
    before = model.lm_head.weight.clone()
    one_step(tmp_path, batch, model, dtype="bfloat16", optimizer=optimizer, learning_rate=1e-2)
    assert not torch.equal(before, model.lm_head.weight) and config(optimizer=optimizer).trainer.optimizer == optimizer
