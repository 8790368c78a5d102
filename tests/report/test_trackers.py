"""Trackers get the same numbers under the same names, know a resumed run again, and can harm neither run nor secret.

Each is read back from where it really keeps its data: event files, SQLite, W&B's offline records.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from crrl import registry
from crrl.conf.load import in_full, load_recipe
from crrl.conf.schema import Config
from crrl.conf.schema import Tracker as Settings
from crrl.errors import CrrlError, UsageError
from crrl.learning.step_metrics import of_episodes
from crrl.report.trackers import api
from crrl.report.trackers.fan_out import Trackers, evaluation_metrics, spread, table_row, tracked_config
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode

SECRET = "hush-hush-8431"
METRICS = {"reward": 0.5, "reward/tests": 0.25, "agent/turns": 3.0}


class Words:
    """A tokenizer is needed for conversations alone; these episodes have none."""

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


def episode(name: str, group: str = "train/0/0", **named: object) -> Episode:
    verdict = Verdict(0.5, {"tests": 0.0, "format": 1.0}, {}, [], "", False)
    return Episode(name, group, "task-1", 0, 1, "scored", patch="- a\n+ b\n", verdict=verdict, **named)  # type: ignore[arg-type]


def tracked(folder: Path, *names: str, step: int = 0, episodes: int = 2, checkpoints: bool = False) -> Trackers:
    config = Config(run="mine")
    config.agent.env = {"TOKEN": SECRET}
    config.agent.files = {".netrc": f"password {SECRET}"}
    config.tracker = Settings(name=list(names), offline=True, episodes=episodes, checkpoints=checkpoints)
    run = api.TrackedRun("abc123def0", "mine", folder, tracked_config(config), config.tracker, step)
    return Trackers(run, lambda text: pytest.fail(text))


def use(folder: Path, *names: str) -> None:
    """Two updates, a kill that loses the second, a resume that takes it again and a third."""
    first = tracked(folder, *names, checkpoints="tensorboard" not in names)
    first.log(0, {"evaluation/rl/greedy/solved": 0.1})
    for step in (1, 2):
        first.log(step, {**METRICS, "reward": step / 10})
    first.episodes(2, lambda: [[episode("e1"), episode("e2")]], Words())
    checkpoint = folder / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights.bin").write_bytes(b"weights")
    first.checkpoint(1, checkpoint)
    first.close(failed=True)
    again = tracked(folder, *names, step=1)
    for step in (2, 3):
        again.log(step, {**METRICS, "reward": step / 10 + 1})
    again.close(failed=False)


def no_secret(*folders: Path) -> None:
    for file in (f for folder in folders for f in folder.rglob("*") if f.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    use(tmp_path, "tensorboard")
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert {*METRICS, "evaluation/rl/greedy/solved"} == set(read.Tags()["scalars"])
    rewards = [(event.step, pytest.approx(event.value)) for event in read.Scalars("reward")]
    assert rewards == [(1, 0.1), (2, 1.2), (3, 1.3)], "the step that was taken again replaces the lost one"
    assert {f"episodes/{i}/text_summary" for i in (0, 1)} <= set(read.Tags()["tensors"])
    no_secret(tmp_path)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra [trackers] is not installed")
    monkeypatch.setenv("WANDB_API_KEY", (SECRET * 4)[:40])
    monkeypatch.setattr(sys, "argv", [*sys.argv, f"agent.env.TOKEN={SECRET}"])
    use(tmp_path, "wandb")
    wandb.teardown()  # as at the end of a process: its helper has written everything
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and {f.name.rpartition("-")[2] for f in folders} == {"abc123def0"}, "one id, one run"
    logged = [row for folder in folders for row in wandb_rows(folder)]
    rewards = [(row["step"], row["reward"]) for row in logged if "reward" in row]
    assert rewards == [(1, 0.1), (2, 0.2), (2, 1.2), (3, 1.3)]
    assert {"step", *METRICS, "evaluation/rl/greedy/solved"} <= {name for row in logged for name in row}
    (table,) = (tmp_path / "wandb").rglob("*.table.json")
    shown = json.loads(table.read_text())
    assert shown["columns"] == list(api.COLUMNS) and [row[1] for row in shown["data"]] == ["e1", "e2"]
    no_secret(tmp_path)


def wandb_rows(folder: Path) -> Iterator[Mapping[str, object]]:
    """History records of an offline run: LevelDB's log format (blocks of 32 KiB; a record's header has its checksum,
    length and which part of it this is) with a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data = next(folder.glob("*.wandb")).read_bytes()
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, part = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # all of it, or its end
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                yield {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}


def test_trackio(tmp_path: Path) -> None:
    """In a process of its own: it reads its folder from the environment when it is imported."""
    pytest.importorskip("trackio", reason="the extra [trackers] is not installed")
    script = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path\n"
    script += f"from test_trackers import use; use(Path({str(tmp_path / 'run')!r}), 'trackio')"
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "stdout is for the result"
    with sqlite3.connect(next((tmp_path / "trackio").rglob("crrl.db"))) as db:
        rows = db.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"mine-abc123de"}
    logged = [(step, json.loads(metrics)) for _, step, metrics in rows]
    rewards = [(step, metrics["reward"]) for step, metrics in logged if "reward" in metrics]
    assert rewards == [(1, 0.1), (2, 0.2), (2, 1.2), (3, 1.3)]
    assert any("episodes" in metrics for _, metrics in logged)
    no_secret(tmp_path)


class Failing:
    """A plug-in that fails at its second number."""

    def __init__(self, run: api.TrackedRun) -> None:
        self.logged = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged += 1
        if self.logged > 1:
            raise OSError("no route to host")

    def episodes(self, step: int, rows: Sequence[Sequence[str | float]]) -> None: ...
    def checkpoint(self, step: int, folder: Path) -> None: ...
    def close(self, failed: bool) -> None: ...


class Refusing(Failing):
    def __init__(self, run: api.TrackedRun) -> None:
        raise CrrlError("not logged in", "log in")


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from crrl.report.trackers import TRACKERS

    for made in (Failing, Refusing):
        monkeypatch.setitem(TRACKERS, made.__name__.lower(), f"{__name__}:{made.__name__}")
    registry.parts.cache_clear()
    yield
    registry.parts.cache_clear()


@pytest.mark.usefixtures("plugged_in")
def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    settings = Settings(name=["failing", "tensorboard"])
    trackers = Trackers(api.TrackedRun("a1", "mine", tmp_path, {}, settings), said.append)
    for step in (1, 2, 3, 4):
        trackers.log(step, METRICS)
    trackers.close(failed=False)
    assert len(said) == 1 and "tracker=failing" in said[0] and "no route to host" in said[0]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [event.step for event in read.Scalars("reward")] == [1, 2, 3, 4]


@pytest.mark.usefixtures("plugged_in")
def test_a_tracker_that_cannot_start_stops_the_run(tmp_path: Path) -> None:
    settings = Settings(name=["tensorboard", "refusing"])
    with pytest.raises(CrrlError, match="not logged in"):
        Trackers(api.TrackedRun("a1", "mine", tmp_path, {}, settings), print)


def test_rows_of_the_table_are_spread_over_groups_and_cut() -> None:
    groups = [[episode(f"{g}{k}") for k in range(3)] for g in "ab"]
    assert [e.id for e in spread(groups, 3)] == ["a0", "b0", "a1"]
    assert spread([], 3) == []
    long = Episode("e", "g", "t", 0, 1, "lost", patch="x" * 10_000)
    row = dict(zip(api.COLUMNS, table_row(7, long, Words()), strict=True))
    assert row["step"] == 7 and row["outcome"] == "lost" and 4000 < len(str(row["patch"])) < 4100


def test_short_forms() -> None:
    assert in_full(["tracker=wandb"]) == ["tracker.name=[wandb]"]
    assert in_full(["tracker=[wandb,trackio]", "evaluation.decodings=greedy"]) == [
        "tracker.name=[wandb,trackio]",
        "evaluation.decodings=[greedy]",
    ]
    assert in_full(["tracker=wandb,trackio", "agent=codex", "engine=local", "seed=1"]) == [
        "tracker.name=[wandb,trackio]",
        "agent=codex",
        "engine.name=local",
        "seed=1",
    ]
    assert load_recipe("quickstart", ["tracker=tensorboard"]).tracker.name == ["tensorboard"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tracker=wanbd"], "no tracker named 'wanbd'"),
        (["tracker=tensorboard,tensorboard"], "twice"),
        (["tracker.episodes=3"], "would be ignored"),
        (["tracker=tensorboard", "tracker.offline=true"], "would be ignored"),
        (["tracker=tensorboard", "tracker.checkpoints=true"], "would be ignored"),
        (["tracker=tensorboard", "tracker.episodes=-1"], "too small"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        load_recipe("quickstart", words)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError) as refused:
        load_recipe("quickstart", ["tracker=wandb"])
    assert "wandb is not installed" in refused.value.message and "[trackers]" in refused.value.remedy


def test_every_name_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    counted = {"turns": 2, "tool_calls": 3}
    splits = {"s": {"greedy": {"after": {"rate": 0.5, "ci95": [0.4, 0.6], "well_formed": 1.0}}}}
    names = {*of_episodes([episode("e", counts=counted)]), *evaluation_metrics(splits)}
    for name in names:
        pattern = re.sub(r"^(reward|agent)/.*", r"\1/<name>", name).replace("/s/greedy/", "/<split>/<decoding>/")
        assert f"`{pattern}`" in text, name


def test_means_of_a_step() -> None:
    lost = Episode("l", "g", "t", 0, 1, "lost", lost_reason="engine")
    metrics = of_episodes([episode("a", counts={"turns": 2}), episode("b", counts={"turns": 4, "malformed": 1}), lost])
    assert metrics["agent/turns"] == 3 and metrics["agent/malformed"] == 0.5, "lost episodes enter no mean"
    assert (metrics["reward/tests"], metrics["reward/format"], metrics["episodes_lost"]) == (0.0, 1.0, 1.0)
