"""Opens a journal's SQLite file: checks it, locks out a second writer, and turns errors into ones a user can act on."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crrl.errors import CrrlError

APPLICATION_ID = 0x6372726C  # "crrl" in SQLite's header: tells a journal from any other database
# 1: each sample had its whole prompt (`content.decode_samples`). 2: plans named groups, not their tasks. Such journals
# are read; whoever opens one to write makes it the newest, for older versions of crrl cannot read what is added.
SCHEMA_VERSION = 3
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
NETWORK |= {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes (
  phase TEXT NOT NULL, id TEXT NOT NULL, grp TEXT NOT NULL, task TEXT NOT NULL, attempt INTEGER NOT NULL,
  outcome TEXT NOT NULL, reward REAL, solved INTEGER, exploits INTEGER NOT NULL, well_formed INTEGER NOT NULL,
  tries INTEGER NOT NULL, wall_s REAL NOT NULL, finished_at REAL NOT NULL, hash TEXT NOT NULL,
  segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, crc INTEGER NOT NULL,
  body BLOB NOT NULL, PRIMARY KEY (phase, id)) WITHOUT ROWID;
CREATE INDEX episodes_by_group ON episodes (grp);
CREATE TABLE lost_tries (
  phase TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL, cause TEXT NOT NULL, detail TEXT NOT NULL,
  version INTEGER, at REAL NOT NULL);
CREATE TABLE steps (
  step INTEGER PRIMARY KEY, groups TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL,
  metrics TEXT NOT NULL, planned_at REAL NOT NULL, trained_at REAL, tasks TEXT NOT NULL);
CREATE TABLE trained_rows (
  step INTEGER NOT NULL, position INTEGER NOT NULL, episode TEXT NOT NULL, row INTEGER NOT NULL,
  hash TEXT NOT NULL, advantage REAL NOT NULL, PRIMARY KEY (step, position)) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


def connect(file: Path, *, create: bool = False, read_only: bool = False) -> sqlite3.Connection:
    """A connection to a journal of a known version.

    Raises:
        CrrlError: no such file, not a journal, damaged, written by a newer crrl, or on a network file system.
    """
    if not create and not file.is_file():
        raise CrrlError(f"There is no journal at {file}.", "Give the folder of a run (runs/NAME).")
    if not read_only:
        _refuse_network(file.parent)
    uri = f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30.0)
    try:
        with readable(file):
            if create:
                # One transaction: a journal has its whole schema, or none.
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            _check(db, file)
            if not read_only:
                _renew(db)
            # In WAL mode, NORMAL keeps every commit through kill -9; after a power loss the file is undamaged, but the
            # last commits may be missing. FULL would cost one more fsync per episode; `Journal.sync` does it per step.
            db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, file: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise CrrlError(f"{file} is an SQLite file, but not a crrl journal.", "Give the folder of a run (runs/NAME).")
    if version > SCHEMA_VERSION:
        raise CrrlError(
            f"{file} has schema {version}; this crrl knows {SCHEMA_VERSION}: a newer crrl wrote it.",
            "Use that version: pip install --upgrade coderepair-rl",
        )


def _renew(db: sqlite3.Connection) -> None:
    """A journal of an older schema becomes one of the newest: whole, or not at all."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < SCHEMA_VERSION:
        there = any(row[1] == "tasks" for row in db.execute("PRAGMA table_info(steps)"))
        tasks = "" if there else "ALTER TABLE steps ADD COLUMN tasks TEXT NOT NULL DEFAULT '[]';"
        db.executescript(f"BEGIN IMMEDIATE; {tasks} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def lock(folder: Path) -> int:
    """The writer's lock, held until the descriptor closes or the process dies, in whatever way."""
    with readable(folder / "journal.lock"):
        fd = os.open(folder / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise CrrlError(
            f"Another process{f' ({holder})' if holder else ''} is writing to {folder}.",
            "Wait for it, or stop it; two runs cannot share a folder.",
        ) from error
    os.truncate(fd, 0)
    os.pwrite(fd, f"pid {os.getpid()}".encode(), 0)
    return fd


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turns errors of SQLite and the system into CrrlErrors with a remedy."""
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        code = getattr(error, "sqlite_errorcode", None)  # Python's own complaints (text that is no UTF-8) have none
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or (code is not None and code & 0xFF == sqlite3.SQLITE_FULL):
            raise CrrlError(
                f"The disk that holds {file.parent} is full. Nothing half-written is left behind.",
                f"Free some space, then resume: crrl train resume={file.parent.name}",
            ) from error
        if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise CrrlError(
                f"{file} is damaged, or not an SQLite file: {error}.",
                "Restore it from a copy of the run folder, or start a new run.",
            ) from error
        if isinstance(error, OSError | sqlite3.OperationalError):
            raise CrrlError(f"{file}: {error}.", "Check the disk and the folder's permissions.") from error
        raise


@contextmanager
def decoded(file: Path, table: str) -> Iterator[None]:
    """What is in a table is not what was written there: SQLite has no checksums of its own."""
    try:
        yield
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
    ) as error:  # msgspec's and json's are ValueErrors
        raise CrrlError(
            f"{file} is damaged: its table {table} cannot be read ({type(error).__name__}: {error}).",
            "Restore it from a copy of the run folder, or start a new run.",
        ) from error


def _refuse_network(folder: Path) -> None:
    kind = filesystem(folder, Path("/proc/self/mounts").read_text())
    if kind in NETWORK:
        raise CrrlError(
            f"{folder} is on a network file system ({kind}), where SQLite's locks cannot be trusted.",
            "Put runs on a local disk: runs_dir=/some/local/folder",
        )


def filesystem(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`. `mounts`: the text of /proc/self/mounts."""
    path = path.resolve()
    found: tuple[int, str] = (-1, "")
    for line in mounts.splitlines():
        _, point, kind = line.split(" ")[:3]
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), point)
        if path.is_relative_to(point):  # of several mounts on one point, the last is visible
            found = max(found, (len(Path(point).parts), kind), key=lambda f: f[0])
            if len(Path(point).parts) == found[0]:
                found = (found[0], kind)
    return found[1]
