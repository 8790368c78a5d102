"""Supervised fine-tuning: the right tokens, the right loss, and a result that is whole or not there."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from learning_kit import VOCAB, tiny_model, tiny_tokenizer
from transformers import PreTrainedModel

from crrl.cli.main import main
from crrl.conf.load import load_rows
from crrl.conf.schema import RowsConfig
from crrl.engines.load import load_model, load_tokenizer
from crrl.errors import CrrlError, UsageError
from crrl.gateway.api import Sample
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.learning import lora, sft, sft_rows
from crrl.learning.sft_rows import Found, SftRow
from crrl.models import model_folder
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import TRAIN, Journal

TOOLS = [{"type": "function", "function": {"name": "run", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer(model_folder("tiny"), "qwen3")


def rows(count: int, seed: int = 0) -> list[SftRow]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        n = rng.randint(6, 30)
        made.append(SftRow([rng.randrange(VOCAB - 2) for _ in range(n)], [int(i >= n // 2) for i in range(n)]))
    return made


def settings(out: Path, *words: str) -> RowsConfig:
    return load_rows([f"out={out}", "tokens_per_pack=64", "learning_rate=1e-3", "warmup_steps=0", *words])


def start(config: RowsConfig) -> PreTrainedModel:
    """What the command begins with."""
    return tiny_model() if config.adapter.name == "none" else lora.new(tiny_model(), config.adapter, config.seed)


def quiet(done: int, planned: int, numbers: dict[str, float]) -> None: ...


def logits(model: torch.nn.Module, row: SftRow) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([row.ids])).logits[0, :-1].double()


def nll(model: torch.nn.Module, rows: list[SftRow]) -> float:
    """Mean over all trained tokens, row by row."""
    total, count = 0.0, 0
    for row in rows:
        picked = F.log_softmax(logits(model, row), -1).gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        kept = torch.tensor(row.trained[1:]).bool()
        total, count = total - picked[kept].sum().item(), count + int(kept.sum())
    return total / count


# Rows ------------------------------------------------------------------------------------------------------------


def test_a_chat_is_what_the_gateway_would_serve_and_only_the_model_is_trained(renderer: Renderer) -> None:
    call = Call("run", '{"command":"ls"}')
    messages = [
        Message("system", "Be brief."),
        Message("user", "Fix it."),
        Message("assistant", "Looking.", [call]),
        Message("tool", "a.py b.py"),
        Message("assistant", "Done."),
        Message("user", "Thanks."),
    ]
    row = sft_rows.of_conversation(messages, TOOLS, renderer)
    first = renderer.prompt(messages[:2], TOOLS)
    answer = renderer.assistant(messages[2])
    second = renderer.bridge(first, answer, messages[3:4])
    assert row.ids == second + renderer.assistant(messages[4]), "what follows the last answer asks for nothing"
    runs = "".join(map(str, row.trained)).split("0")
    assert [len(run) for run in runs if run] == [len(answer), len(renderer.assistant(messages[4]))]
    said = renderer.tokenizer.decode([t for t, m in zip(row.ids, row.trained, strict=True) if m])
    assert "Looking." in said and "Done." in said and "a.py" not in said and "Fix it" not in said
    assert row.ids[-1] in renderer.stop_ids, "it learns to stop"


def chats(folder: Path, *lines: object) -> Path:
    file = folder / "chats.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return file


def chat(*messages: tuple[str, str], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **more}


def test_bad_lines_are_named_and_the_rest_goes_on(tmp_path: Path, renderer: Renderer) -> None:
    good = chat(("user", "Say it."), ("assistant", "It."))
    lines = [
        good,
        "{",
        chat(("user", "x")),
        {"prompt": "x"},
        "[]",
        chat(("assistant", "x")),
        chat(("nobody", "x"), ("assistant", "x")),
        "",
        chat(("user", "long " * 400), ("assistant", "x")),
        good | {"tools": TOOLS, "id": 7, "reward": 1.0},
    ]
    found = Found()
    sft_rows.of_chats(chats(tmp_path, *lines), renderer, 256, found)
    assert len(found.rows) == 2
    assert found.left_out == {"unreadable lines": 6, "longer than 256 tokens": 1}
    assert [fault.split(":")[1] for fault in found.faults] == ["2", "3", "4", "5", "6"], "the first few, by line"
    assert any("6 unreadable lines" in line for line in sft_rows.summary(found))


def test_nothing_to_train_on_is_an_error_with_the_reason(tmp_path: Path, renderer: Renderer) -> None:
    file = chats(tmp_path, chat(("user", "x")))
    with pytest.raises(CrrlError, match="1 unreadable lines") as caught:
        sft_rows.read([file], renderer, "solved", 256, {})
    assert "chats.jsonl:1" in caught.value.remedy
    with pytest.raises(CrrlError, match=r"nowhere\.jsonl cannot be read"):
        sft_rows.read([tmp_path / "nowhere.jsonl"], renderer, "solved", 256, {})


def test_a_runs_rows_are_the_sampled_tokens_of_its_solved_training_episodes(tmp_path: Path, renderer: Renderer) -> None:
    samples = [Sample("s0", "e", None, [1, 2], [5, 6], [-0.1, -0.2], [0, 0])]
    samples.append(Sample("s1", "e", "s0", [9], [7], [-0.3], [1]))
    solved, failed = (Verdict(float(x), {}, {}, [], "", x) for x in (True, False))
    with Journal.create(tmp_path / "run", {}) as journal:
        for name, outcome, verdict in (("a", "scored", solved), ("b", "truncated", failed), ("c", "lost", None)):
            journal.add_episode(TRAIN, Episode(name, "g", "t", 0, 0, outcome, samples, verdict=verdict))
        journal.add_episode("before", Episode("d", "g", "t", 0, 0, "scored", samples, verdict=solved))
    folder = tmp_path / "run"
    found = sft_rows.read([folder], renderer, "solved", 256, {folder: True})
    assert found.rows == [SftRow([1, 2, 5, 6, 9, 7], [0, 0, 1, 1, 0, 1])]
    assert found.left_out == {"unsolved episodes": 1, "lost episodes": 1}
    assert len(sft_rows.read([folder], renderer, "scored", 256, {folder: True}).rows) == 2


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    chats(tmp_path, chat(("user", "Say it."), ("assistant", "It.")))
    for words, said in (
        (["sft", "out=x"], "needs DATA"),
        (["sft", "nowhere", "out=x"], "neither a run"),
        (["sft", "chats.jsonl", "out=."], "out=. exists"),
    ):
        assert main(words) == 2 and said in capsys.readouterr().err
    assert main(["sft", "chats.jsonl", "out=x", "--dry-run"]) == 0 and "chats.jsonl" in capsys.readouterr().out
    assert main(["sft", "chats.jsonl", "out=x", "threads=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    load_model(tmp_path / "x")
    assert load_tokenizer(tmp_path / "x").chat_template


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path, renderer: Renderer) -> None:
    with pytest.raises(CrrlError, match="another tokenizer"):
        sft_rows.read([tmp_path], renderer, "solved", 256, {tmp_path: False})


# The loss --------------------------------------------------------------------------------------------------------


def test_packs_have_the_loss_of_their_rows(tmp_path: Path) -> None:
    data = rows(9)
    record = sft.fine_tune(
        tiny_model(), None, tiny_tokenizer(), data, settings(tmp_path / "out", "packs_per_step=100"), quiet
    )
    assert record["steps"] == 1, "all packs are one update"
    assert record["first_loss"] == pytest.approx(nll(tiny_model(), data), abs=1e-4)  # TRL rounds what it logs


def test_kl_to_the_base(tmp_path: Path) -> None:
    """At the start the base is the policy; against another model the loss has beta times the exact divergence."""
    data = rows(5)
    config = settings(tmp_path / "same", "packs_per_step=100", "beta=0.5")
    same = sft.fine_tune(tiny_model(), tiny_model(), tiny_tokenizer(), data, config, quiet)
    assert same["first_loss"] == pytest.approx(nll(tiny_model(), data), abs=1e-4)
    config = settings(tmp_path / "other", "packs_per_step=100", "beta=0.5")
    other = sft.fine_tune(tiny_model(), tiny_model(1), tiny_tokenizer(), data, config, quiet)
    total, count = 0.0, 0
    for row in data:
        ours, theirs = (F.log_softmax(logits(tiny_model(seed), row), -1) for seed in (0, 1))
        kept = torch.tensor(row.trained[1:]).bool()
        total += (ours.exp() * (ours - theirs)).sum(-1)[kept].sum().item()
        count += int(kept.sum())
    assert total / count > 0.1
    assert other["first_loss"] == pytest.approx(nll(tiny_model(), data) + 0.5 * total / count, abs=2e-4)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_it_learns_and_the_result_is_a_model_folder(tmp_path: Path, adapter: str) -> None:
    out = tmp_path / "out"
    data = rows(6)
    words = ("epochs=20", "packs_per_step=1", "learning_rate=1e-2", f"adapter={adapter}", "save_steps=1000")
    torch.manual_seed(0)
    config = settings(out, *words)
    record = sft.fine_tune(start(config), None, tiny_tokenizer(), data, config, quiet)
    assert record["last_loss"] < record["first_loss"] / 2
    saved = load_model(out)
    assert nll(saved, data) < nll(tiny_model(), data) / 2
    assert json.loads((out / "sft.json").read_text())["rows"] == 6
    assert not list(tmp_path.glob("*.state")) and not list(tmp_path.glob(".*"))
    if adapter == "lora":
        from peft import PeftModel

        beside = PeftModel.from_pretrained(tiny_model(), str(out / "adapter"))
        assert torch.allclose(logits(beside, data[0]), logits(saved, data[0]), atol=1e-4)


def interrupted(after: int) -> sft.Progress:
    """Ctrl-C when this many updates were shown."""

    def show(done: int, planned: int, numbers: dict[str, float]) -> None:
        if numbers and done == after:
            raise KeyboardInterrupt

    return show


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_an_interrupted_command_goes_on_where_it_stopped(tmp_path: Path, adapter: str) -> None:
    """And ends with the weights of one that was not interrupted."""
    data = rows(8)
    words = ("epochs=3", "packs_per_step=1", "save_steps=2", f"adapter={adapter}")
    ends = []
    for name, shown in (("straight", [quiet]), ("broken", [interrupted(5), quiet])):
        config = settings(tmp_path / name, *words)
        for progress in shown:
            torch.manual_seed(0)
            try:
                sft.fine_tune(start(config), None, tiny_tokenizer(), data, config, progress)
            except KeyboardInterrupt:
                assert not (tmp_path / name).exists()
        ends.append(load_model(tmp_path / name).state_dict())
    assert all(torch.equal(a, ends[1][name]) for name, a in ends[0].items())


def test_checkpoints_of_another_command_are_not_continued(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sft.fine_tune(tiny_model(), None, tiny_tokenizer(), rows(8), settings(out, "epochs=3"), interrupted(1))
    for data, words in ((rows(7), ("epochs=3",)), (rows(8), ("epochs=4",))):
        with pytest.raises(UsageError, match="another command"):
            sft.fine_tune(tiny_model(), None, tiny_tokenizer(), data, settings(out, *words), quiet)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Where does the model go"),
        (["out=x", "episodes=all"], "episodes=all does not exist"),
        (["out=x", "adapter.r=4"], "would be ignored"),
        (["out=x", "renderer.calls=lenient"], "would be ignored"),
        (["out=x", "adapter=qlora"], "does not exist"),
        (["out=x", "epochs=0"], "above 0"),
        (["out=x", "tokens_per_pack=1"], "too small"),
        (["out=x", "learning_rat=1"], "no setting"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_rows(words)


def test_the_shipped_policy_reads_its_own_rows(renderer: Renderer) -> None:
    """A solved conversation in its own form is nearly certain to it: rendering is what it was trained on."""
    tokenizer = load_tokenizer(model_folder("tiny"))
    row = sft_rows.of_conversation([Message("user", "x"), Message("assistant", "y")], None, renderer)
    assert tokenizer.decode(row.ids).endswith("y<|im_end|>") and math.prod(row.trained[-2:]) == 1
