"""The journal of a run: every finished episode, step and lost try. Durable, one writer (invariant 8).

An episode is finished when its row is committed, and the row is committed only after the episode's token arrays are on
disk (`tokens.py`). A resumed run reads which episodes exist from `finished`, and what was trained in which order from
`steps`. The key of an episode is (phase, id); the phase is `train`, or an evaluation's: `before`, `after` or `eval`.
All methods are thread-safe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from crrl.errors import CrrlError
from crrl.rollout import journal_file
from crrl.rollout.api import AT_THE_ENGINE, Episode, TrainedRow
from crrl.rollout.content import content_hash, decode_samples, encode_samples
from crrl.rollout.tokens import Place, Segments

FILE = "journal.sqlite"
TRAIN = "train"


@dataclass(frozen=True)
class Step:
    """One update. `groups`: in the order in which they are consumed; `tasks`: of each, its task's id ([]: not recorded,
    as before schema 3). `version`: of the policy when the step's first attempts started."""

    step: int
    groups: list[str]
    version: int
    state: Literal["planned", "trained"]
    metrics: dict[str, Any]
    tasks: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class EpisodeRow:
    """An episode without its tokens, for lists and statistics."""

    phase: str
    id: str
    group: str
    task: str
    attempt: int
    outcome: str
    reward: float | None
    solved: bool
    exploits: int
    well_formed: bool
    tries: int
    wall_s: float


class Journal:
    """Made by `create` or `open`; `close` it, or use it in a `with`."""

    def __init__(self, folder: Path, db: sqlite3.Connection, lock: int | None) -> None:
        self.folder = folder
        self._db = db
        self._lock = lock
        self._mutex = threading.RLock()
        self._tokens = Segments(folder / "tokens")
        self.cut_bytes = 0  # dropped on opening: the tail of a write that was killed

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> Journal:
        """A new journal in a run folder (made if missing). `meta`: JSON values: config, versions, seed.

        Raises:
            CrrlError: there is one already, the folder is on a network file system, the disk is full.
        """
        file = folder / FILE
        with journal_file.readable(file):
            folder.mkdir(parents=True, exist_ok=True)
            lock = journal_file.lock(folder)
        try:
            cls.fill(folder, meta)
        finally:
            os.close(lock)
        return cls.open(folder)

    @staticmethod
    def fill(folder: Path, meta: Mapping[str, Any]) -> None:
        """The file of a new journal, in a folder whose lock the caller holds. Raises CrrlError."""
        file = folder / FILE
        if file.exists():
            raise CrrlError(f"{file} exists.", f"Resume it: crrl train resume={folder.name}")
        # Under another name until it is complete: a killed `create` leaves no half-made journal.
        new = folder / f"{FILE}.new"
        for stale in folder.glob(f"{FILE}.new*"):
            stale.unlink()
        db = journal_file.connect(new, create=True)
        try:
            with journal_file.readable(file):
                rows = [(k, json.dumps(v)) for k, v in meta.items()]
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        finally:
            db.close()
        os.rename(new, file)

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Journal:
        """An existing journal. `read_only` takes no lock, so you can look at a run while it is in progress.

        Raises:
            CrrlError: missing, foreign, damaged, of a newer crrl, on a network file system, or another
                process writes to it.
        """
        file = folder / FILE
        if read_only or not file.is_file():
            return cls(folder, journal_file.connect(file, read_only=True), None)
        lock = journal_file.lock(folder)
        try:
            journal = cls(folder, journal_file.connect(file), lock)
            with journal_file.readable(file), journal_file.decoded(file, "episodes"):
                ends = journal._db.execute("SELECT segment, max(offset + length) FROM episodes GROUP BY segment")
                journal.cut_bytes = journal._tokens.cut(dict(ends.fetchall()))
        except BaseException:
            os.close(lock)
            raise
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._mutex:
            self._db.close()
            self._tokens.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    # Writing ----------------------------------------------------------------------------------------------

    def add_episode(self, phase: str, episode: Episode) -> bool:
        """Make a finished episode durable: once this returns, no kill can lose it.

        Returns:
            False: the same episode was already there (a resend); nothing was written.

        Raises:
            CrrlError: a different episode has the same id (it would count twice), or the disk is full.
        """
        hash = content_hash(episode)
        with self._writing() as db:
            known = db.execute("SELECT hash FROM episodes WHERE phase=? AND id=?", (phase, episode.id)).fetchone()
            if known:
                if known[0] == hash:
                    return False
                raise CrrlError(f"Episode {episode.id} ({phase}) finished twice, with different content.")
            place = self._tokens.append(encode_samples(episode.samples))
            verdict = episode.verdict
            row = (
                *(phase, episode.id, episode.group, episode.task, episode.attempt, episode.outcome),
                *((verdict.reward, verdict.solved, len(verdict.exploits)) if verdict else (None, False, 0)),
                *(episode.well_formed, episode.tries, _wall_s(episode), time.time(), hash),
                *dataclasses.astuple(place),
                msgspec.msgpack.encode(dataclasses.replace(episode, samples=[])),
            )
            try:
                db.execute(f"INSERT INTO episodes VALUES ({','.join('?' * len(row))})", row)
            except sqlite3.Error:
                self._tokens.forget(place)
                raise
        return True

    def add_lost_try(
        self, phase: str, id: str, task: str, cause: str, detail: str = "", version: int | None = None
    ) -> None:
        """Record a try that our side lost; the attempt is retried under the same id."""
        with self._writing() as db:
            row = (phase, id, task, cause, detail, version, time.time())
            db.execute("INSERT INTO lost_tries VALUES (?,?,?,?,?,?,?)", row)

    def plan_step(self, step: int, groups: Sequence[str], version: int, tasks: Sequence[str] = ()) -> None:
        """Record the groups that step `step` will be trained on, in order, and the task of each. From then on this plan
        holds: a resumed run follows it (`planned`). Groups may be appended to it while it is not trained.

        Raises:
            CrrlError: the step has another plan: the resumed run would differ from the one that was started.
        """
        plan = (list(groups), list(tasks))
        with self._writing() as db:
            found = db.execute("SELECT groups, tasks, state FROM steps WHERE step=?", (step,)).fetchone()
            if found is None:
                row = (step, json.dumps(plan[0]), version, "planned", "{}", time.time(), json.dumps(plan[1]))
                db.execute("INSERT INTO steps VALUES (?,?,?,?,?,?,NULL,?)", row)
                return
            known = (json.loads(found[0]), json.loads(found[1]))
            if any(new[: len(old)] != old for new, old in zip(plan, known, strict=True)) or (
                found[2] == "trained" and plan[0] != known[0]
            ):
                raise CrrlError(f"Step {step} was planned with other groups before: {found[0]}, tasks {found[1]}.")
            if plan != known:
                values = (json.dumps(plan[0]), json.dumps(plan[1]), step)
                db.execute("UPDATE steps SET groups=?, tasks=? WHERE step=?", values)

    def planned(self, step: int) -> list[tuple[str, str]]:
        """(group, task id) of a step, in order; []: it was not planned yet, or before tasks were recorded."""
        found = self._all("SELECT groups, tasks FROM steps WHERE step=?", step)
        with journal_file.decoded(self.folder / FILE, "steps"):
            groups, tasks = map(json.loads, found[0]) if found else ([], [])
            return list(zip(groups, tasks, strict=True)) if tasks else []

    def step_trained(self, step: int, metrics: Mapping[str, Any], rows: Sequence[TrainedRow] = ()) -> None:
        """Record that step `step` was trained on these rows. A resumed run repeats the steps after its last checkpoint,
        on the same rows.

        Raises:
            CrrlError: the step was not planned, or was trained on other rows before.
        """
        with self._writing() as db:
            new = [(step, i, r.episode, r.index, r.hash, r.advantage) for i, r in enumerate(rows)]
            known = db.execute("SELECT state FROM steps WHERE step=?", (step,)).fetchone()
            if known is None:
                raise CrrlError(f"Step {step} was trained, but never planned.")
            if known[0] == "trained":
                old = db.execute("SELECT * FROM trained_rows WHERE step=? ORDER BY position", (step,)).fetchall()
                if old != new:
                    raise CrrlError(f"Step {step} was trained on other rows before the resume.")
            values = (json.dumps(metrics), time.time(), step)
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute("UPDATE steps SET state='trained', metrics=?, trained_at=? WHERE step=?", values)
                db.executemany("INSERT OR REPLACE INTO trained_rows VALUES (?,?,?,?,?,?)", new)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    def set_meta(self, key: str, value: Any) -> None:
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, json.dumps(value)))

    def sync(self) -> None:
        """Survive a power loss too; commits survive kill -9 without this. Cheap enough for every step."""
        with self._writing() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # Reading ----------------------------------------------------------------------------------------------

    @property
    def meta(self) -> dict[str, Any]:
        found = self._all("SELECT key, value FROM meta")
        with journal_file.decoded(self.folder / FILE, "meta"):
            return {key: json.loads(value) for key, value in found}

    def finished(self, phase: str) -> set[str]:
        """Ids of the finished episodes of a phase."""
        return {id for (id,) in self._all("SELECT id FROM episodes WHERE phase=?", phase)}

    def episode(self, id: str, phase: str = TRAIN) -> Episode:
        """Raises CrrlError: there is none, or its token record is damaged."""
        for episode in self._episodes("WHERE phase=? AND id=?", phase, id):
            return episode
        raise CrrlError(f"The journal in {self.folder} has no episode {id} in phase {phase}.")

    def episodes(self, phase: str | None = TRAIN) -> Iterator[Episode]:
        """Whole episodes, ordered by id, one in memory at a time. None: of every phase."""
        return self._episodes("", *()) if phase is None else self._episodes("WHERE phase=?", phase)

    def group(self, group: str, phase: str = TRAIN) -> list[Episode]:
        """The finished episodes of a group, by attempt."""
        return sorted(self._episodes("WHERE phase=? AND grp=?", phase, group), key=lambda e: e.attempt)

    def outline(self, phase: str | None = None) -> list[EpisodeRow]:
        """All episodes without their tokens, in the order in which they finished."""
        return self._outline("", *()) if phase is None else self._outline("WHERE phase=?", phase)

    def _outline(self, where: str, *args: Any) -> list[EpisodeRow]:
        names = [f.name for f in dataclasses.fields(EpisodeRow)]
        columns = ", ".join(names).replace("group", "grp")
        found = self._all(f"SELECT {columns} FROM episodes {where} ORDER BY finished_at, phase, id", *args)
        rows = [dict(zip(names, row, strict=True)) for row in found]
        with journal_file.decoded(self.folder / FILE, "episodes"):
            return [msgspec.convert(row, EpisodeRow, strict=False) for row in rows]

    def results(self, groups: Sequence[str], phase: str = TRAIN) -> list[EpisodeRow]:
        """The finished episodes of these groups without their tokens, by group and attempt."""
        rows = [row for group in groups for row in self._outline("WHERE phase=? AND grp=?", phase, group)]
        return sorted(rows, key=lambda row: (groups.index(row.group), row.attempt))

    def attempted_exploits(self) -> list[tuple[str, str, list[str]]]:
        """(phase, id, names of attempted exploits) of every episode that was not lost."""
        columns = "phase, id, CASE WHEN exploits THEN body END"
        found = self._all(f"SELECT {columns} FROM episodes WHERE outcome != 'lost' ORDER BY phase, id")
        with journal_file.decoded(self.folder / FILE, "episodes"):
            read = [(phase, id, body and msgspec.msgpack.decode(body, type=Episode)) for phase, id, body in found]
        return [(phase, id, of.verdict.exploits if of and of.verdict else []) for phase, id, of in read]

    def phases(self) -> dict[str, int]:
        """Phase -> finished episodes."""
        return dict(self._all("SELECT phase, count(*) FROM episodes GROUP BY phase"))

    def lost_tries(self) -> list[dict[str, Any]]:
        names = ("phase", "id", "task", "cause", "detail", "version", "at")
        found = self._all("SELECT * FROM lost_tries ORDER BY rowid")
        return [dict(zip(names, row, strict=True)) for row in found]

    def steps(self) -> list[Step]:
        tasks = "tasks" if self._has_tasks else "'[]'"
        found = self._all(f"SELECT step, groups, {tasks}, version, state, metrics FROM steps ORDER BY step")
        with journal_file.decoded(self.folder / FILE, "steps"):
            return [Step(s, json.loads(g), v, state, json.loads(m), json.loads(t)) for s, g, t, v, state, m in found]

    @property
    def _has_tasks(self) -> bool:
        """Not in a journal of an older schema that is only read."""
        return any(row[1] == "tasks" for row in self._all("PRAGMA table_info(steps)"))

    def trained_rows(self, step: int | None = None) -> list[TrainedRow]:
        """The trained rows, in order. `learning.replay.replay` compares them with `episodes()`."""
        where, args = ("WHERE step=?", (step,)) if step is not None else ("", ())
        columns = "episode, row, hash, advantage"
        found = self._all(f"SELECT {columns} FROM trained_rows {where} ORDER BY step, position", *args)
        return [TrainedRow(*row) for row in found]

    def ledger_hash(self, phase: str | None = None) -> str:
        """A hash of the contents of all episodes, regardless of their order and durations. Two runs with the same seed
        at concurrency 1 have equal ones (invariant 10)."""
        where, args = ("WHERE phase=?", (phase,)) if phase is not None else ("", ())
        found = self._all(f"SELECT phase, id, hash FROM episodes {where} ORDER BY phase, id", *args)
        return hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest()

    # ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise ValueError("this journal was opened for reading, or is closed")
        with self._mutex, journal_file.readable(self.folder / FILE):
            yield self._db

    def _all(self, query: str, *args: Any) -> list[Any]:
        with self._mutex, journal_file.readable(self.folder / FILE):
            return self._db.execute(query, args).fetchall()

    def _episodes(self, where: str, *args: Any) -> Iterator[Episode]:
        query = f"SELECT body, segment, offset, length, crc FROM episodes {where} ORDER BY phase, id"
        for body, *place in self._all(query, *args):
            with journal_file.decoded(self.folder / FILE, "episodes"):
                samples = decode_samples(self._tokens.read(Place(*place)))
                episode = dataclasses.replace(msgspec.msgpack.decode(body, type=Episode), samples=samples)
            yield episode


def _wall_s(episode: Episode) -> float:
    return sum(seconds for part, seconds in episode.timings.items() if part not in AT_THE_ENGINE)
