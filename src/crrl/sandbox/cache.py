"""The caches below the state folder: what is there, how large and how old it is, and removing it.

Invariants: nothing that a living process uses is removed (`in_use`); an entry is there whole or not at all (it is
renamed under the lock, and deleted afterwards: what a killed clean leaves is deleted by the next); no link is followed
and nothing below a mount is touched. Sizes are disk blocks, each file counted once however many names it has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crrl.errors import CrrlError, LostError
from crrl.sandbox.containers.api import Engine
from crrl.sandbox.containers.images import Images
from crrl.sandbox.in_use import Living, cleaning

MADE_AGAIN = ("workspaces", "environments", "checkouts", "images", "tools", "leftovers")
"""Kinds that come back by themselves when they are next needed: what a budget may remove."""
INSTALLED = ("toolchains", "interpreters", "agents", "engines")
"""Kinds that somebody installed: removed only when they are named."""
KINDS = (*MADE_AGAIN, *INSTALLED)

REMOVED = "removed-"
WHERE: dict[str, tuple[str, ...]] = {
    "workspaces": ("workspaces/[0-9a-f][0-9a-f]/[0-9a-f]*",),
    "environments": ("environments/" + "[0-9a-f]" * 32,),
    "checkouts": ("checkouts/defects4j-*",),
    "tools": ("tools/*-*", "harness/[0-9a-f]*", "pid1-*.pyc", "container-python-*"),
    "leftovers": (
        *("clone-*", "history-*", "patch-*", "doors-*", "bench-*", "container-python-new-*", "workspaces/*/new-*"),
        *("environments/*.new-*", "checkouts/new-*", "tools/tmp*", "harness/tmp*"),
        *(f"{place}{REMOVED}*" for place in ("", "*/", "workspaces/*/", "toolchains/python/")),
    ),
    "toolchains": ("toolchains/[!.]*",),
    "interpreters": ("toolchains/python/[!.]*",),
    "agents": ("agents/[!.]*",),
    "engines": ("engines/[!.]*",),
}
POOL = "workspaces/shared"
IN_USE, MEANWHILE = "in use", "used meanwhile"
EXPECTED = (IN_USE, MEANWHILE)
"""Reasons to keep an entry that are no fault."""


@dataclass(frozen=True)
class Entry:
    """`name`: the path below the state folder, or the image's. `used`: last, as a Unix time. `own`: bytes that nothing
    else has; `shared`: bytes of each part (a file with several names, a layer) that other entries may have, too."""

    kind: str
    name: str
    used: float
    in_use: bool
    own: int = 0
    shared: dict[object, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.own + sum(self.shared.values())


@dataclass(frozen=True)
class Total:
    """Of one kind. `in_use`: entries; `oldest`, `newest`: last uses, as Unix times."""

    kind: str
    entries: int
    bytes: int
    in_use: int
    oldest: float | None
    newest: float | None


@dataclass(frozen=True)
class Cache:
    """What `look` found. `pool`: files that workspaces share, by inode. `notes`: what could not be looked at."""

    kinds: tuple[str, ...]
    entries: list[Entry]
    pool: dict[object, int]
    notes: list[str]

    def size(self, kinds: Collection[str] = KINDS) -> int:
        """Bytes of these kinds, each part once."""
        entries = [entry for entry in self.entries if entry.kind in kinds]
        parts = dict(self.pool) if "workspaces" in kinds else {}
        for entry in entries:
            parts |= entry.shared
        return sum(parts.values()) + sum(entry.own for entry in entries)

    def totals(self) -> list[Total]:
        """Of each kind that was looked at."""
        found = []
        for kind in self.kinds:
            entries = [entry for entry in self.entries if entry.kind == kind]
            used = [entry.used for entry in entries]
            in_use = sum(entry.in_use for entry in entries)
            oldest, newest = min(used, default=None), max(used, default=None)
            found.append(Total(kind, len(entries), self.size([kind]), in_use, oldest, newest))
        return found


@dataclass(frozen=True)
class Removed:
    """What went; the bytes that came free; what stayed, with the reason."""

    entries: list[Entry]
    freed: int
    kept: list[tuple[Entry, str]]


def look(state_dir: Path, kinds: Collection[str] = KINDS) -> Cache:
    """All entries of these kinds. Raises OSError."""
    if not state_dir.is_dir():
        return Cache(tuple(kinds), [], {}, [])
    with cleaning(state_dir) as living:
        found = [(kind, path) for kind in kinds if kind != "images" for path in _paths(state_dir, kind)]
    entries, notes = [], []
    for kind, path in found:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            own, shared = _weigh(path)
            name = str(path.relative_to(state_dir))
            entries.append(Entry(kind, name, path.lstat().st_mtime, _in_use(kind, path, name, living), own, shared))
    if "images" in kinds:
        try:
            entries += _images(state_dir, living)
        except (CrrlError, LostError) as error:
            notes.append(f"images: {error}")
    pool = state_dir / POOL
    pooled = _weigh(pool, every=True)[1] if "workspaces" in kinds and pool.is_dir() else {}
    return Cache(tuple(kinds), entries, pooled, notes)


def counted(entries: int) -> str:
    return "1 entry" if entries == 1 else f"{entries} entries"


def in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def choose(cache: Cache, kinds: Collection[str], *, before: float | None = None, at_most: int | None = None) -> Removed:
    """What is to go, nothing removed yet: of these kinds, what was last used before `before` (a Unix time), and of the
    rest the least recently used until `at_most` bytes are left; with neither, all. Leftovers go in any case. What is
    in use stays."""
    entries = sorted((entry for entry in cache.entries if entry.kind in kinds), key=lambda entry: entry.used)
    users = Counter(part for entry in entries for part in entry.shared)
    unused = sum(size for part, size in cache.pool.items() if part not in users) if "workspaces" in kinds else 0
    left = cache.size(kinds) - unused
    chosen, kept, freed = [], [], unused
    for entry in entries:
        too_old = before is not None and entry.used < before
        too_much = at_most is not None and left > at_most
        if not (too_old or too_much or entry.kind == "leftovers" or (before is None and at_most is None)):
            continue
        if entry.in_use:
            kept.append((entry, IN_USE))
            continue
        chosen.append(entry)
        users.subtract(entry.shared.keys())
        gone = entry.own + sum(size for part, size in entry.shared.items() if not users[part])
        left, freed = left - gone, freed + gone
    return Removed(chosen, freed, kept)


def remove(state_dir: Path, wanted: Removed) -> Removed:
    """Remove what `choose` gave. What came into use meanwhile stays. Raises CrrlError (no container engine)."""
    gone: list[Entry] = []
    kept = list(wanted.kept)
    renamed: list[tuple[Entry, Path]] = []
    mounts = _mount_points()
    with cleaning(state_dir) as living:
        for entry in (entry for entry in wanted.entries if entry.kind != "images"):
            path = state_dir / entry.name
            try:
                if _in_use(entry.kind, path, entry.name, living) or path.lstat().st_mtime != entry.used:
                    kept.append((entry, MEANWHILE))
                elif any(mount == str(path) or mount.startswith(f"{path}/") for mount in mounts):
                    kept.append((entry, "something is mounted there"))
                else:
                    aside = path.with_name(f"{REMOVED}{secrets.token_hex(8)}")
                    path.rename(aside)
                    renamed.append((entry, aside))
            except FileNotFoundError:  # another clean was first
                continue
            except OSError as error:
                kept.append((entry, str(error)))
    for entry, aside in renamed:
        if why := _delete(aside):
            kept.append((entry, why))
        else:
            gone.append(entry)
    if images := [entry for entry in wanted.entries if entry.kind == "images"]:
        with _engine(state_dir) as engine:
            for entry in images:
                (gone if _remove_image(state_dir, entry, engine, kept) else []).append(entry)
    if (state_dir / POOL).is_dir():
        _prune(state_dir / POOL)
    lost = {entry.name for entry, _ in kept}
    freed = wanted.freed - sum(entry.size for entry in wanted.entries if entry.name in lost)
    return Removed(gone, max(freed, 0), kept)


def keep_within(state_dir: Path, max_bytes: int) -> list[str]:
    """A run's budget, at its start: the least recently used of what is made again goes until the rest fits. What was
    done, and what stands in the way, in words."""
    cache = look(state_dir, MADE_AGAIN)
    done = remove(state_dir, choose(cache, MADE_AGAIN, at_most=max_bytes))
    said = [*cache.notes]
    if done.entries:
        said.append(f"Cache: removed {counted(len(done.entries))}, {in_words(done.freed)} (sandbox.cache_gb).")
    if (left := cache.size(MADE_AGAIN) - done.freed) > max_bytes:
        why = done.kept[0][1] if done.kept else "nothing is left to remove"
        said.append(f"The cache takes {in_words(left)}, more than sandbox.cache_gb allows: {why}.")
    return said


def _paths(state_dir: Path, kind: str) -> Iterator[Path]:
    for pattern in WHERE[kind]:
        for path in state_dir.glob(pattern):
            half_made = path.name.startswith((REMOVED, "container-python-new-"))
            if kind == "leftovers" or not (half_made or (kind == "toolchains" and path.name == "python")):
                yield path


def _in_use(kind: str, path: Path, name: str, living: Living) -> bool:
    if kind == "tools":  # every process that makes boxes
        return living.since is not None
    if kind == "leftovers":  # its maker, if it lives, came before it
        maker_may_live = living.since is not None and path.lstat().st_ctime > living.since - 1
        return maker_may_live and not path.name.startswith(REMOVED)
    return name in living.entries


def _weigh(path: Path, every: bool = False) -> tuple[int, dict[object, int]]:
    """(bytes of files with one name, bytes of those with several by inode). `every`: of all by inode."""
    shared: dict[object, int] = {}
    waiting = [path]
    info = path.lstat()
    own = info.st_blocks * 512
    if not stat.S_ISDIR(info.st_mode):
        return own, {}
    device = info.st_dev
    while waiting:
        try:
            with os.scandir(waiting.pop()) as rows:
                for row in rows:
                    info = row.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        if info.st_dev == device:
                            own += info.st_blocks * 512
                            waiting.append(Path(row.path))
                    elif every or info.st_nlink > 1:
                        shared[(info.st_dev, info.st_ino)] = info.st_blocks * 512
                    else:
                        own += info.st_blocks * 512
        except (FileNotFoundError, PermissionError):  # removed meanwhile; another user's
            continue
    return own, shared


def _delete(path: Path) -> str:
    """Why it could not be; "" where it is gone. Folders without write permission are no hindrance."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return ""
        with contextlib.suppress(PermissionError):
            path.chmod(0o700)
        for here, folders, _ in os.walk(path):
            for name in folders:
                folder = os.path.join(here, name)
                if not os.path.islink(folder):
                    with contextlib.suppress(OSError):  # rmtree says it better
                        os.chmod(folder, 0o700)
        shutil.rmtree(path)
    except FileNotFoundError:  # another clean deletes it, too
        return _delete(path) if path.exists() else ""
    except OSError as error:
        return str(error)
    return ""


def _prune(pool: Path) -> None:
    """Delete shared files that no workspace has. Whoever links one at this moment has it, or makes it anew."""
    for here, _, names in os.walk(pool):
        for name in names:
            path = os.path.join(here, name)
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_nlink == 1:
                    os.unlink(path)


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4].replace("\\040", " ") for line in lines]


@contextlib.contextmanager
def _engine(state_dir: Path) -> Iterator[Engine]:
    from crrl.sandbox.containers.backend import make_engine

    engine = make_engine("auto", state_dir)
    try:
        yield engine
    finally:
        engine.close()


def _images(state_dir: Path, living: Living) -> list[Entry]:
    """Those that were fetched: none that was there before."""
    if not (used := Images(state_dir).recorded()):
        return []
    found = []
    with _engine(state_dir) as engine:
        for name, when in used.items():
            with contextlib.suppress(CrrlError):  # removed by other means
                layers: dict[object, int] = dict(engine.image(name).layers)
                found.append(Entry("images", name, when, f"images/{name}" in living.entries, 0, layers))
    return found


def _remove_image(state_dir: Path, entry: Entry, engine: Engine, kept: list[tuple[Entry, str]]) -> bool:
    with cleaning(state_dir) as living:
        if f"images/{entry.name}" in living.entries:
            kept.append((entry, MEANWHILE))
            return False
        try:
            engine.delete(entry.name)
        except CrrlError as error:
            kept.append((entry, error.message))
            return False
    Images(state_dir).forget(entry.name)
    return True
