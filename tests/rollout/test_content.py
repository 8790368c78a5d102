"""Samples as deltas to their parents: what they are, what they hash to, and journals from before."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.gateway.ledger import addressed, linked
from crrl.learning.replay import replay
from crrl.learning.rows import row_hash, rows_of
from crrl.rewards.api import Verdict
from crrl.rollout import journal_file
from crrl.rollout.api import Episode, TrainedRow
from crrl.rollout.content import content_hash
from crrl.rollout.journal import FILE, TRAIN, Journal


def make(name: str, turns: int, vocabulary: int = 1 << 17, appended: int = 7, sampled: int = 5) -> Episode:
    """A session with a branch: every third turn goes on from the turn before the last."""
    rng = random.Random(name)

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(count)]

    samples: list[Sample] = []
    for i in range(turns):
        parent = samples[max(0, i - 1 - (i % 3 == 2))].id if samples else None
        logprobs = [-rng.random() for _ in range(sampled)]
        samples.append(Sample(f"{name}.{i}", name, parent, ids(appended), ids(sampled), logprobs, [i] * sampled))
    verdict = Verdict(0.5, {"tests": 0.5}, {"a::b": "passed"}, cpu_s=rng.random())
    return Episode(name, "g", "t", 0, 7, "scored", samples=addressed(samples), verdict=verdict, tries=2)


# Schema 1, as it was ------------------------------------------------------------------------------------------


def whole(sample: Sample, **changed: Any) -> dict[str, Any]:
    fields = msgspec.to_builtins(sample)
    del fields["appended"]
    return {**fields, "prompt_ids": sample.prompt_ids, **changed}


def hash_of_schema_1(episode: Episode) -> str:
    number = {sample.id: str(i) for i, sample in enumerate(episode.samples)}
    samples = [
        whole(s, id=number[s.id], session="", parent=s.parent and number[s.parent], times={}) for s in episode.samples
    ]
    verdict = msgspec.to_builtins(dataclasses.replace(episode.verdict, cpu_s=0.0, cached=False))
    plain = msgspec.to_builtins(dataclasses.replace(episode, timings={}, tries=1, counts={}, agent_output=""))
    plain |= {"samples": samples, "verdict": verdict}
    return hashlib.blake2b(msgspec.msgpack.encode(plain, order="sorted"), digest_size=16).hexdigest()


def add_as_schema_1(journal: Journal, episode: Episode, samples: list[dict[str, Any]] | None = None) -> None:
    record = [whole(sample) for sample in episode.samples] if samples is None else samples
    place = journal._tokens.append(msgspec.msgpack.encode(record))
    row = (
        *(TRAIN, episode.id, episode.group, episode.task, episode.attempt, episode.outcome, 0.5, False, 0, False),
        *(1, 0.0, 0.0, hash_of_schema_1(episode), *dataclasses.astuple(place)),
        msgspec.msgpack.encode(dataclasses.replace(episode, samples=[])),
    )
    journal._db.execute(f"INSERT INTO episodes VALUES ({','.join('?' * len(row))})", row)


def old_run(folder: Path, episodes: list[Episode]) -> list[TrainedRow]:
    """A finished run of schema 1, trained on all of them."""
    trained = []
    with Journal.create(folder, {}) as journal:
        journal._db.execute("PRAGMA user_version = 1")
        for episode in episodes:
            add_as_schema_1(journal, episode)
            rows, _ = rows_of(episode, 0.5)
            trained += [TrainedRow(episode.id, i, row_hash(row), 0.5) for i, row in enumerate(rows)]
        journal.plan_step(0, ["g"], 0)
        journal.step_trained(0, {}, trained)
    return trained


def schema(folder: Path) -> int:
    with sqlite3.connect(folder / FILE) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_journal_of_schema_1_is_read_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [make(f"e{turns}", turns) for turns in (1, 2, 5, 20)]
    trained = old_run(tmp_path / "run", episodes)
    with Journal.open(tmp_path / "run", read_only=True) as journal:
        for episode in episodes:
            read = journal.episode(episode.id)
            assert read == episode
            assert [s.prompt_ids for s in read.samples] == [s.prompt_ids for s in episode.samples]
        report = replay(journal.episodes(), journal.trained_rows())
        assert report.exact and report.rebuilt == len(trained) > len(episodes)
    assert main(["replay", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rebuilt"] == len(trained)
    assert schema(tmp_path / "run") == 1  # whoever only looks changes nothing


def test_a_run_of_schema_1_goes_on(tmp_path: Path) -> None:
    old, new = [make(f"e{turns}", turns) for turns in (3, 17)], make("new", 6)
    old_run(tmp_path, old)
    with Journal.open(tmp_path) as journal:
        before = journal.ledger_hash()
        assert not any(journal.add_episode(TRAIN, episode) for episode in old)  # a resend is known for what it is
        with pytest.raises(CrrlError, match="finished twice"):
            journal.add_episode(TRAIN, dataclasses.replace(old[0], patch="another"))
        assert journal.ledger_hash() == before
        assert journal.add_episode(TRAIN, new)
    assert schema(tmp_path) == journal_file.SCHEMA_VERSION == 3  # an older crrl must not try to read it
    with Journal.open(tmp_path) as journal:
        assert sorted(journal.episodes(), key=lambda e: e.id) == sorted([*old, new], key=lambda e: e.id)


@pytest.mark.parametrize(
    ("index", "change"),
    [(1, {"parent": "nobody"}), (1, {"prompt_ids": [1, 2, 3]}), (0, {"ids": [1]}), (1, {"prompt_ids": []})],
)
def test_a_record_of_schema_1_that_contradicts_itself_is_not_read(tmp_path: Path, index: int, change: dict) -> None:
    """Its whole prompts are proved when they are cut, for afterwards nothing could tell."""
    episode = make("e", 3)
    samples = [whole(sample) for sample in episode.samples]
    samples[index] |= change
    with Journal.create(tmp_path, {}) as journal:
        add_as_schema_1(journal, episode, samples)
        with pytest.raises(CrrlError, match=r"Sample e\.1 does not extend its parent"):
            journal.episode("e")


@pytest.mark.parametrize("turns", [0, 1, 15, 16, 300, 70_000])
def test_the_hash_of_an_episode_is_that_of_schema_1(turns: int) -> None:
    if turns > 1000:  # roots, for a chain of so many would take the square of it
        samples = [Sample(str(i), "s", None, [1], [2], [-0.5], [0]) for i in range(turns)]
        episode = dataclasses.replace(make("e", 1), samples=samples)
    else:
        episode = make("e", turns)
    assert content_hash(episode) == hash_of_schema_1(episode)


# The form -----------------------------------------------------------------------------------------------------


def test_an_episode_of_60_turns_and_32k_tokens_is_small_on_the_pipe() -> None:
    episode = make("e", 60, 1 << 16, 32_000 // 60 - 50, 50)
    chain = [dataclasses.replace(s, parent=f"e.{i - 1}" if i else None) for i, s in enumerate(episode.samples)]
    episode = dataclasses.replace(episode, samples=addressed(chain))
    last = episode.samples[-1]
    assert 31_000 < len(last.prompt_ids) + len(last.ids) <= 32_000
    assert len(msgspec.msgpack.encode(("episode", episode))) < 200_000
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(episode), type=Episode) == episode


def test_whatever_makes_an_episode_its_samples_know_their_parents() -> None:
    episode = make("e", 4)
    prompts = [sample.prompt_ids for sample in episode.samples]
    raw = msgspec.msgpack.encode(("episode", episode))
    for again in (
        msgspec.msgpack.decode(raw, type=tuple[str, Episode])[1],
        msgspec.convert(msgspec.msgpack.decode(raw)[1], Episode),
        dataclasses.replace(episode, samples=[dataclasses.replace(s) for s in episode.samples]),
    ):
        assert [sample.prompt_ids for sample in again.samples] == prompts
    alone = dataclasses.replace(episode.samples[1])
    with pytest.raises(ValueError, match=r"sample e\.1: its parent e\.0 is not in the ledger"):
        _ = alone.prompt_ids
    assert "_before" not in repr(episode) + msgspec.json.encode(episode).decode()


def test_a_ledger_with_another_parent_leaves_the_first_as_it_was() -> None:
    first, second = linked([Sample("a", "s", None, [1], [2], [0.0], [0]), Sample("b", "s", "a", [3], [4], [0.0], [0])])
    other = linked([dataclasses.replace(first, ids=[7, 7]), second])
    assert other[1].prompt_ids == [1, 7, 7, 3] and second.prompt_ids == [1, 2, 3]
    assert linked(other) == other and all(one is same for one, same in zip(linked(other), other, strict=True))
    assert linked([other[1]])[0].parent == "a"
    with pytest.raises(ValueError, match="not in the ledger"):
        _ = linked([other[1]])[0].prompt_ids
