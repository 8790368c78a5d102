"""`crrl bench length` and `crrl bench push`, small: both trainers come to the same gradients; a push is proved."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crrl.cli.bench import run
from crrl.cli.call import Call
from crrl.errors import CrrlError, UsageError
from crrl.learning import bench_length, bench_process, bench_push
from crrl.models import model_folder


def test_both_trainers_have_the_same_gradients_of_a_long_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_length, "WARM_UP", 16)
    ours, trl = (bench_length.step(who, 48, model_folder("tiny")) for who in ("crrl", "trl"))
    assert set(ours.gradients) == set(trl.gradients) and all(".lora_" in name for name in ours.gradients)
    largest = max(tensor.abs().max().item() for tensor in trl.gradients.values())
    assert largest > 0
    for name, wanted in trl.gradients.items():
        assert (ours.gradients[name] - wanted).abs().max().item() < 1e-5 * largest


def test_lines_say_what_did_not_fit() -> None:
    cost = bench_length.Cost(2.0, 3 * 2**20, 1.0)
    costs: dict[int, dict[str, bench_length.Cost | None]] = {
        1000: {"crrl": cost, "trl": cost},
        32000: {"crrl": None, "trl": None},
    }
    found = bench_length.LengthBench("tiny", 10**6, costs, "1 1 1")
    lines = found.lines()
    assert "2000" in lines[2] and "3" in lines[2] and "differ by" in lines[2]
    assert lines[3].count("does not fit") == 2


async def test_a_push_is_timed_and_proved() -> None:
    pushed = await bench_push.push(model_folder("tiny"))
    assert pushed.cpu_s > 0 and 0 < pushed.gap < 1e-3
    assert "tiny" in "\n".join(bench_push.PushBench({"tiny": pushed, "huge": None}, "1 1 1").lines())


def test_what_does_not_fit_is_told_from_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "fits.py").write_text("print('noise'); print('{\"a\": 1}')")
    (tmp_path / "large.py").write_text(f"bytearray({sys.maxsize // 2**16})")
    (tmp_path / "wrong.py").write_text("raise SystemExit('a reason')")
    assert bench_process.measured("fits") == {"a": 1}
    assert bench_process.measured("large") is None
    with pytest.raises(CrrlError, match="a reason"):
        bench_process.measured("wrong")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["length", "tokens=0"], "tokens=0"),
        (["length", "tokens=1k"], "tokens=1k"),
        (["length", "tokens="], "tokens="),
        (["push", "tokens=64"], "tokens"),
        (["train", "model=tiny"], "model"),
        (["all", "tokens=64"], "tokens"),
    ],
)
def test_options_of_another_benchmark_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(Call.of("bench", words))


@pytest.mark.parametrize("word", ["length", "push"])
def test_a_folder_without_a_model(word: str, tmp_path: Path) -> None:
    with pytest.raises(CrrlError, match=r"config\.json"):
        run(Call.of("bench", [word, f"model={tmp_path}"]))
