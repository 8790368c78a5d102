"""`prepare`: makes a task's source into a `Workspace`, once, cached by content under `state_dir`.

The tree has its own `.git` with exactly one commit (invariant 5: no later commit, reflog or packed object of the real
repository); beside it is a bare git dir of the host that no box sees. Both are written here with hashlib and zlib:
blobs, trees, one commit and an index are quickly made, and with thousands of tiny repositories every git process saved
counts (~3 ms of CPU each). They are made in a temporary folder and renamed: never half-written, safe to make
concurrently.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use
from crrl.sandbox.api import Workspace
from crrl.sandbox.patch import Entry, ObjectStore, write_listing
from crrl.sandbox.shared import SharedFiles, write_new
from crrl.sandbox.whole import whole
from crrl.task import Source

FORMAT = "1"
AUTHOR = "crrl <crrl@localhost> 946684800 +0000"  # a fixed date: equal trees give equal commits
CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = {bare}\n"
GIT_ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
Blob = tuple[bytes, int, bytes]  # path, mode, content (a symlink's target)


def prepare(source: Source, state_dir: Path, uid: int) -> Workspace:
    """The workspace of `source`. Blocking; equal sources give equal workspaces. Raises CrrlError."""
    given = [name for name in ("repo", "dir", "files") if getattr(source, name) is not None]
    if source.image is not None and not given:
        raise CrrlError(f"The source is the image {source.image} alone.", "It needs a sandbox that runs images.")
    if len(given) != 1 or (source.repo is not None) != (source.base_commit is not None):
        raise CrrlError(f"A source has {given or 'nothing'}.", "Give repo and base_commit, or dir, or files.")
    root = state_dir / "workspaces"
    if source.files is not None:
        blobs: Iterable[Blob] = [(_safe(path), 0o100644, text.encode()) for path, text in source.files.items()]
        key = _digest(blobs)
    elif source.dir is not None:
        blobs = list(_read_dir(Path(source.dir)))
        key = _digest(blobs)
    else:
        assert source.repo is not None and source.base_commit is not None
        key = hashlib.sha256(f"{FORMAT}\0repo\0{source.repo}\0{source.base_commit}".encode()).hexdigest()
        blobs = []
    if source.patches:
        key = hashlib.sha256("\0".join([key, *source.patches]).encode()).hexdigest()
    made = root / key[:2] / key
    while not in_use.use(made, state_dir):
        content: Iterable[Blob] = blobs
        if source.repo is not None and source.base_commit is not None:
            content = read_commit(source.repo, source.base_commit, state_dir)
        if source.patches:
            content = patched(content, source.patches, state_dir)
        shared = SharedFiles(root / "shared" / str(uid)) if source.repo is not None else None
        try:
            write(content, made, uid, shared=shared)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = "Free space there (crrl clean workspaces), or set sandbox.state_dir."
                raise CrrlError(f"The disk of sandbox.state_dir is full: {state_dir}", remedy) from error
            raise
    return Workspace(made / "lower", made / "git", (made / "base").read_text())


def _safe(path: str) -> bytes:
    parts = path.split("/")
    if any(p in ("", ".", "..") or p.lower() == ".git" for p in parts) or "\0" in path:
        raise CrrlError(f"A source has a file named {path!r}.", "Use plain relative paths.")
    return path.encode()


def _digest(blobs: Iterable[Blob]) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    for path, mode, data in sorted(blobs):
        digest.update(b"%d %s\0%o %d\0" % (len(path), path, mode, len(data)) + data)
    return digest.hexdigest()


def _read_dir(root: Path) -> Iterator[Blob]:
    if not root.is_dir():
        raise CrrlError(f"The source directory {root} does not exist.", "Check the task's source.dir.")
    for folder, folders, names in os.walk(os.fsencode(root)):
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        folders[:] = sorted(f for f in folders if f != b".git" and f not in links)
        for name in sorted([*names, *links]):
            full = os.path.join(folder, name)
            info = os.lstat(full)
            path = os.path.relpath(full, os.fsencode(root))
            if stat.S_ISLNK(info.st_mode):
                yield path, 0o120000, os.readlink(full)
            elif stat.S_ISREG(info.st_mode) and name != b".git":
                mode = 0o100755 if info.st_mode & 0o100 else 0o100644
                with open(full, "rb") as file:
                    yield path, mode, file.read()


def read_commit(repo: str, commit: str, state_dir: Path, paths: Sequence[str] = ()) -> Iterator[Blob]:
    """The files of one commit, or only `paths` and everything below them, as git stores them: no attribute, filter or
    hook of the repository is applied."""
    if repo.startswith("-") or not commit or commit.startswith("-"):
        raise CrrlError(f"Not a repository and commit: {repo!r} {commit!r}", "Check the task's source.")
    state_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state_dir, prefix="clone-") as folder:
        git_dir = repo
        if not Path(repo).is_dir():
            git_dir = folder
            git(["init", "-q", "--bare", folder])
            try:
                git(["-C", folder, "fetch", "-q", "--depth=1", repo, commit])
            except CrrlError:  # servers may refuse to serve a bare commit id
                git(["-C", folder, "fetch", "-q", repo, "+refs/*:refs/crrl/*"])
        at = ["-c", "safe.directory=*", "-C", git_dir]
        listing = git([*at, "ls-tree", "-r", "-z", "--full-tree", "--", f"{commit}^{{commit}}", *paths])
        rows = [row.split(b"\t", 1) for row in listing.split(b"\0") if row]
        files = [(path, *meta.split(b" ")) for meta, path in rows]
        files = [row for row in files if row[2] == b"blob"]  # submodules are not fetched
        objects = git([*at, "cat-file", "--batch"], b"".join(oid + b"\n" for _, _, _, oid in files))
        offset = 0
        for path, mode, _, oid in files:
            end = objects.index(b"\n", offset)
            header = objects[offset:end].split(b" ")
            if header[0] != oid or len(header) != 3:
                raise CrrlError(f"{repo}: object {oid.decode()} is missing.", "Fetch the whole repository.")
            size = int(header[2])
            yield path, int(mode, 8), objects[end + 1 : end + 1 + size]
            offset = end + size + 2


def patched(blobs: Iterable[Blob], patches: list[str], state_dir: Path) -> Iterator[Blob]:
    """The tree with the source's own patches, applied by git in a folder that is no repository."""
    with tempfile.TemporaryDirectory(dir=state_dir, prefix="patch-") as folder:
        for path, mode, data in blobs:
            _write(os.path.join(os.fsencode(folder), path), mode, data)
        for patch in patches:
            apply = ["-C", folder, "apply", "--whitespace=nowarn", "-"]
            git(apply, patch.encode(), GIT_CEILING_DIRECTORIES=os.path.dirname(folder))
        yield from _read_dir(Path(folder))


def git(
    args: list[str], stdin: bytes = b"", *, remedy: str = "Check the task's repo and base_commit.", **env: str
) -> bytes:
    """Runs git without any user's configuration, and returns its output. Raises CrrlError with its message."""
    done = subprocess.run(["git", *args], input=stdin, capture_output=True, env=GIT_ENV | env, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip()[:500]
        raise CrrlError(f"git {' '.join(args)[:200]}: {reason}", remedy)
    return done.stdout


def write(
    blobs: Iterable[Blob],
    made: Path,
    uid: int,
    finish: Callable[[Path], object] = lambda folder: None,
    shared: SharedFiles | None = None,
) -> None:
    """Make the folder `made`, with `lower`, `git`, `base` and whatever `finish` adds, completely or not at all.
    `shared`: the store to link files from, owned by `uid`."""
    with whole(made, "new-") as folder:
        lower, git_dir = str(folder / "lower"), str(folder / "git")
        for path in (lower, f"{lower}/.git/refs/heads", f"{git_dir}/refs/heads"):
            os.makedirs(path)
        store = ObjectStore(f"{git_dir}/objects", shared)
        entries: dict[bytes, Entry] = {}
        sizes: dict[bytes, int] = {}
        for name, mode, data in blobs:
            _write(os.path.join(os.fsencode(lower), name), mode, data, shared)
            entries[name] = mode, store.add(b"blob", data)
            sizes[name] = len(data)
        tree = store.tree(entries)
        commit = store.add(b"commit", f"tree {tree}\nauthor {AUTHOR}\ncommitter {AUTHOR}\n\nbase\n".encode())
        write_listing(git_dir, entries)
        shutil.copytree(store.path, f"{lower}/.git/objects", copy_function=os.link)
        for place, bare in ((git_dir, "true"), (f"{lower}/.git", "false")):
            Path(place, "HEAD").write_text("ref: refs/heads/main\n")
            user = "" if place == git_dir else "[user]\n\tname = agent\n\temail = agent@localhost\n"
            Path(place, "config").write_text(CONFIG.format(bare=bare) + user)
            Path(place, "refs/heads/main").write_text(commit + "\n")
        Path(lower, ".git/index").write_bytes(_index(entries, sizes))
        _hand_over(folder, uid)
        finish(folder)
        (folder / "base").write_text(commit)


def _write(full: bytes, mode: int, data: bytes, shared: SharedFiles | None = None) -> None:
    try:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if mode == 0o120000:
            os.symlink(data, full)
        elif shared is None:
            write_new(full, mode & 0o777, data)
        else:
            shared.put(data, mode & 0o777, full)
    except FileExistsError as error:
        name = os.fsdecode(full)
        raise CrrlError(
            f"A source names {name} twice, or as a file and a folder.", "Check the task's files."
        ) from error


def _index(entries: dict[bytes, Entry], sizes: dict[bytes, int]) -> bytes:
    """git's index, version 2, with empty stat data: the agent's first `git status` finds everything clean."""
    body = [b"DIRC" + struct.pack(">II", 2, len(entries))]
    for path in sorted(entries):
        mode, oid = entries[path]
        row = struct.pack(">10I", 0, 0, 0, 0, 0, 0, mode, 0, 0, sizes[path]) + bytes.fromhex(oid)
        row += struct.pack(">H", min(len(path), 0xFFF)) + path
        body.append(row + b"\0" * (8 - len(row) % 8))
    data = b"".join(body)
    return data + hashlib.sha1(data, usedforsecurity=False).digest()


def _hand_over(folder: Path, uid: int) -> None:
    """Readable by the uid that boxes run as, and its own, so that an agent may change every file (in its
    layer)."""
    os.chmod(folder, 0o755)
    if os.getuid() != 0:
        return
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.chown(os.path.join(here, name), uid, uid, follow_symlinks=False)
