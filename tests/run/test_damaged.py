"""Any damaged file of a run gives one error that names it, or nothing at all is wrong; never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from crrl.conf.load import load_recipe, load_saved, to_yaml
from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.learning import checkpoint
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode, TrainedRow
from crrl.rollout.journal import Journal
from crrl.run.folder import create

FILES = ["journal.sqlite", "config.yaml", "tokens/segment-00001.bin", "checkpoints/step-1/crrl.json"]
FILES += ["checkpoints/step-1/weights.bin", "journal.lock"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("damaged") / "run"
    config = load_recipe("quickstart", ["run=run"])
    with create(run, {"seed": 1, "policy": "p", "versions": {"torch": "2"}}, to_yaml(config)) as journal:
        for n in range(12):
            sample = Sample(f"s{n}", "x", None, [1, 2, n], list(range(60)), [-0.5] * 60, [1] * 60)
            verdict = Verdict(1.0, {"tests": 1.0}, {"a::b": "passed"}, ["edited_tests"], solved=True)
            episode = Episode(f"e{n}", f"g{n // 4}", "t", n % 4, n, "scored", samples=[sample], verdict=verdict)
            journal.add_episode("train", episode)
            journal.add_lost_try("train", f"e{n}", "t", "sandbox_died", "x" * 200)
        for step in range(2):
            journal.plan_step(step, ["g0", "g1"], step)
            journal.step_trained(step, {"loss": 0.5}, [TrainedRow("e0", 0, "h", 0.5)])
    checkpoint.write(run / "checkpoints", 1, "p", 2, lambda folder: torch.save({"w": 1}, folder / "weights.bin"))
    return run


def read_everything(run: Path) -> None:
    """What a resume, a report and a replay read."""
    if found := checkpoint.latest(run):
        checkpoint.of_policy(found, "p")
    with Journal.open(run) as journal:
        assert isinstance(journal.meta, dict)
        journal.outline(), journal.attempted_exploits(), journal.steps(), journal.trained_rows()
        journal.lost_tries(), journal.phases(), journal.finished("train"), journal.ledger_hash()
        list(journal.episodes(None))
        journal.group("g0")
        journal.plan_step(0, ["g0", "g1"], 0)
        journal.set_meta("again", 1)


def garbled(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice([1, 4, 60, 900])
    return data[:at] + rng.randbytes(size) + data[at + size :]


def yaml_of_another_shape(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode().splitlines()
    line = rng.randrange(len(lines))
    lines[line] = rng.choice(
        ["5: 6", "- a", lines[line].split(":")[0] + ": [", "model: 3", "x: {y: z}", "\tq", "!!int a"]
    )
    return "\n".join(lines).encode()


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda data, rng: b"",
    "cut": lambda data, rng: data[: rng.randrange(len(data) or 1)],
    "garbled": garbled,
    "garbage": lambda data, rng: rng.randbytes(max(len(data), 64)),
    "zeros": lambda data, rng: bytes(len(data)),
    "longer": lambda data, rng: data + rng.randbytes(500),
    "text": lambda data, rng: b"hello: world\n",
    "list": lambda data, rng: json.dumps([1, 2]).encode(),
    "line": yaml_of_another_shape,
}


@pytest.mark.parametrize("damage", [*DAMAGES, "missing", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    if damage == "line" and name != "config.yaml":
        pytest.skip("of text only")
    rng = random.Random(f"{name} {damage}")
    for round in range(25 if damage in ("garbled", "line", "cut") else 2):
        run = tmp_path / f"run{round}"
        shutil.copytree(whole, run)
        file = run / name
        data = file.read_bytes()
        if damage in DAMAGES:
            file.write_bytes(DAMAGES[damage](data, rng))
        else:
            file.unlink()
            if damage == "folder":
                file.mkdir()
        try:
            load_saved(file) if name == "config.yaml" else read_everything(run)
        except CrrlError as error:
            assert str(file) in error.message or str(file.parent) in error.message, error
            assert error.remedy, error
        shutil.rmtree(run)
