"""The workspace of a task whose repository is inside a container image, made once and cached by content.

The files tracked by git are read out of the image as they are, without running any of its programs; of its `.git`, only
the list of tracked files is used. Like every workspace, it gets a history of one commit. Boxes run in the image with
that `.git` in place of the image's own (`init.py`). Every other git store of the image with the base commit is hidden,
and then the image is searched for the commit once more (invariant 5).
"""

from __future__ import annotations

import hashlib
import io
import marshal
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from crrl.errors import CrrlError
from crrl.sandbox import in_use, workspace
from crrl.sandbox.api import ImageRoot, Workspace
from crrl.task import Source

FORMAT = "1"
COMMIT = re.compile(r"[0-9a-f]{40}")
OBJECT = re.compile(r"objects/([0-9a-f]{2}/[0-9a-f]{38}|pack/pack-[0-9a-f]+\.(pack|idx))")
Archive = Callable[[str], Iterator[bytes]]  # a path of the image -> a tar stream; FileNotFoundError
Find = Callable[[ImageRoot, list[str]], list[str]]  # git stores that hold one of these commits, in a box of that root


def prepare(source: Source, state_dir: Path, *, id: str, user: str, archive: Archive, find: Find) -> Workspace:
    """Blocking. `id`: of the image, by content. Raises CrrlError."""
    workdir = _workdir(source)
    key = hashlib.sha256("\0".join(["image", FORMAT, id, workdir, *source.patches]).encode()).hexdigest()
    made = state_dir / "workspaces" / key[:2] / key
    root = ImageRoot(id, workdir, user, made / "layer", hidden=tuple(source.hidden))
    while not in_use.use(made, state_dir):
        _make(source, state_dir, made, root, archive, find)
    hide, changed = marshal.loads((made / "image").read_bytes())
    root = replace(root, hide=tuple(hide), changed=changed)
    return Workspace(made / "lower", made / "git", (made / "base").read_text(), image=root)


def _make(source: Source, state_dir: Path, made: Path, root: ImageRoot, archive: Archive, find: Find) -> None:
    workdir = root.workdir
    commits = [c for c in (source.base_commit, _head(archive, workdir)) if c and COMMIT.fullmatch(c)]
    original = {path: (mode, data) for path, mode, data in _tracked(archive, workdir)}
    blobs: Iterable[workspace.Blob] = [(path, mode, data) for path, (mode, data) in original.items()]
    if source.patches:
        blobs = list(workspace.patched(blobs, source.patches, state_dir))

    def finish(folder: Path) -> None:
        now = {path: (mode, data) for path, mode, data in blobs}
        names = {path for path in original.keys() | now.keys() if original.get(path) != now.get(path)}
        _layer(folder, workdir)
        here = replace(root, layer=folder / "layer")
        hide = [store for store in find(here, commits) if store != f"{workdir}/.git"] if commits else []
        if commits and (left := find(replace(here, hide=tuple(hide)), commits)):
            remedy = "No task may show its repair: report the image, and leave the task out."
            raise CrrlError(f"{source.image}: the history in {left[0]} cannot be hidden.", remedy)
        changed = {os.fsdecode(name): now.get(name) for name in names}
        (folder / "image").write_bytes(marshal.dumps((hide, changed)))

    workspace.write(blobs, made, os.getuid(), finish)


def of_history(source: Source, paths: Sequence[str], state_dir: Path, *, id: str, archive: Archive) -> Workspace:
    """These files as of `source.base_commit`, from the image's git store: for instance the tests that came with the
    repair.

    The host's own git reads only the objects: hooks, settings and alternate stores of the image are ignored. Blocking.
    Raises CrrlError.
    """
    workdir, commit = _workdir(source), source.base_commit or ""
    key = hashlib.sha256("\0".join(["history", FORMAT, id, workdir, commit, *paths]).encode()).hexdigest()
    made = state_dir / "workspaces" / key[:2] / key
    while not in_use.use(made, state_dir):
        with tempfile.TemporaryDirectory(dir=state_dir, prefix="history-") as folder:
            workspace.git(["init", "-q", "--bare", folder])
            try:
                _objects(archive(f"{workdir}/.git/objects"), Path(folder))
                blobs = list(workspace.read_commit(folder, commit, state_dir, paths))
            except (CrrlError, FileNotFoundError) as error:
                raise CrrlError(
                    f"{source.image}: the tests cannot be taken from its history: {error}",
                    "Is it the image of this task, with the commit of its repair?",
                ) from error
        workspace.write(blobs, made, os.getuid())
    return Workspace(made / "lower", made / "git", (made / "base").read_text())


def _objects(chunks: Iterator[bytes], git_dir: Path) -> None:
    with tarfile.open(fileobj=_Stream(chunks), mode="r|", errors="surrogateescape") as stream:
        for member in stream:
            if member.isreg() and OBJECT.fullmatch(member.name) and (file := stream.extractfile(member)) is not None:
                place = git_dir / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("wb") as out:
                    shutil.copyfileobj(file, out)


def _workdir(source: Source) -> str:
    workdir = os.path.normpath(source.workdir)
    if not workdir.startswith("/") or workdir == "/":
        raise CrrlError(f"The source's workdir is {source.workdir!r}.", "Name the repository's folder in the image.")
    return workdir


def _layer(folder: Path, workdir: str) -> None:
    """The workspace's `.git`, in place of the image's own, which it hides completely."""
    git = folder / "layer" / workdir[1:] / ".git"
    shutil.copytree(folder / "lower" / ".git", git, copy_function=os.link)
    for place in (folder / "layer").rglob("*"):
        if place.is_dir():
            place.chmod(0o755)
    (folder / "layer").chmod(0o755)
    try:
        os.setxattr(git, "user.overlay.opaque", b"y")
    except OSError as error:
        raise CrrlError(
            f"The file system of {folder} has no extended attributes: {error}",
            "Set sandbox.state_dir to a folder on ext4, xfs or btrfs.",
        ) from error


def _tracked(archive: Archive, workdir: str) -> Iterator[workspace.Blob]:
    """The files tracked by the image's git, as they are; without git, all files."""
    index = _file(archive, f"{workdir}/.git/index")
    wanted = _listed(index) if index is not None else None
    links: list[tuple[bytes, int]] = []
    try:
        with tarfile.open(fileobj=_Stream(archive(workdir)), mode="r|", errors="surrogateescape") as stream:
            for member in stream:
                path = member.name.partition("/")[2].encode("utf-8", "surrogateescape")
                if not path or b".git" in path.split(b"/") or (wanted is not None and path not in wanted):
                    continue
                mode = 0o100755 if member.mode & 0o100 else 0o100644
                if member.issym():
                    yield path, 0o120000, member.linkname.encode("utf-8", "surrogateescape")
                elif member.islnk():
                    links.append((path, mode))
                elif (file := stream.extractfile(member)) is not None:
                    yield path, mode, file.read()
    except FileNotFoundError as error:
        raise CrrlError(str(error), "Is the source's workdir right?") from error
    for path, mode in links:  # a hard link to an earlier file: a stream cannot go back
        data = _file(archive, f"{workdir}/{os.fsdecode(path)}")
        if data is not None:
            yield path, mode, data


def _listed(index: bytes) -> set[bytes]:
    """The paths in a git index, without submodules."""
    with tempfile.TemporaryDirectory(prefix="crrl-index-") as folder:
        Path(folder, "index").write_bytes(index)
        workspace.git(["init", "-q", "--bare", f"{folder}/git"])
        list_index = [f"--git-dir={folder}/git", "ls-files", "-z", "--stage"]
        listed = workspace.git(
            list_index, remedy="Is git recent enough for the image's?", GIT_INDEX_FILE=f"{folder}/index"
        )
        rows = [row.split(b"\t", 1) for row in listed.split(b"\0") if row]
        return {path for meta, path in rows if not meta.startswith(b"160000")}


def _head(archive: Archive, workdir: str) -> str:
    """The current commit of the image's repository; "" if it cannot be read."""
    head = (_file(archive, f"{workdir}/.git/HEAD") or b"").decode(errors="replace").strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    if (loose := _file(archive, f"{workdir}/.git/{name}")) is not None:
        return loose.decode(errors="replace").strip()
    packed = (_file(archive, f"{workdir}/.git/packed-refs") or b"").decode(errors="replace")
    return next((line.split(" ")[0] for line in packed.splitlines() if line.endswith(f" {name}")), "")


def _file(archive: Archive, path: str) -> bytes | None:
    try:
        whole = b"".join(archive(path))
    except FileNotFoundError:
        return None
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        return file.read() if file is not None else None


class _Stream(io.RawIOBase):
    """Chunks as a file that tarfile reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while have < size or size < 0:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        whole = b"".join(parts)
        cut = len(whole) if size < 0 else size
        self._rest = whole[cut:]
        return whole[:cut]
