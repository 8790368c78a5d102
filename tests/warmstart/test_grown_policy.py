"""A warm start that goes on from another policy: what that one knows stays, and the new form is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from crrl.engines.load import load_model, load_tokenizer
from crrl.models import model_folder
from crrl.warmstart.blocks import Blocks
from crrl.warmstart.form import PoolSettings
from crrl.warmstart.pool import PARTS, Pool
from crrl.warmstart.sft import SftSettings, grown_model, loss_of, new_model, train
from crrl.warmstart.tokenizer import grown

TOKENIZER = grown(load_tokenizer(model_folder("tiny")), Blocks.whole)


@pytest.fixture(scope="module")
def pool() -> Pool:
    ids: list[int] = []
    parts: list[int] = []
    starts = [0]
    for segments in Blocks().demonstrations(PoolSettings(random_share=0.0), 0, 48):
        for segment in segments:
            piece = TOKENIZER(segment.text, add_special_tokens=False)["input_ids"]
            ids += piece
            parts += [PARTS[segment.part]] * len(piece)
        starts.append(len(ids))
    return Pool(np.array(ids, dtype=np.uint16), np.array(parts, dtype=np.uint8), np.array(starts))


def test_what_it_knew_stays() -> None:
    before, after = load_model(model_folder("tiny")), grown_model("tiny", TOKENIZER)
    old = before.config.vocab_size
    ids = torch.tensor([TOKENIZER("def f(x):\n    return x\n", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(before(ids).logits, after(ids).logits[..., :old])
    assert after.config.vocab_size == len(TOKENIZER) == old + len(Blocks.whole)
    assert after.get_input_embeddings().weight is after.get_output_embeddings().weight
    new = after.get_input_embeddings().weight[old:]
    assert len({tuple(row.tolist()) for row in new}) == len(new), "markers begin apart"


def test_it_learns_the_form_from_what_it_knew(pool: Pool, tmp_path: Path) -> None:
    ids, weights = pool.batch(range(16), 0.0)
    fresh, begun = new_model(len(TOKENIZER), 2, 0), grown_model("tiny", TOKENIZER)
    settings = SftSettings(steps=12, batch=4, lr_muon=0.01, lr_adam=2e-3, threads=1)
    learnt = train(pool, begun, settings, tmp_path / "sft.pt", lambda *_: None)
    with torch.no_grad():
        first, start, end = (float(loss_of(m, ids, weights)) for m in (fresh, grown_model("tiny", TOKENIZER), learnt))
    assert end < start - 0.2 < start < first
