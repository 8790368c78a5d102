"""The patch of a workspace: one `git diff-tree` over two small trees that we write ourselves (invariant 3).

The overlay's upper layer names every path that an episode touched, so nothing is asked of the agent's `.git`,
index, attributes, ignore files or hooks, and the cost does not grow with the repository. The changed files
become objects in a throw-away directory; two trees hold only the changed paths, before and after; git
compares these two. Runs in the box's keeper: as the unprivileged uid, with limits, in a mount namespace
that ends with the box.

Left out: paths with a `.git` component, `__pycache__`, `.pytest_cache`, `*.pyc` unless they are part of the
base, devices, pipes and sockets; new content beyond `FILE_BYTES` a file and `TOTAL_BYTES` in all (in path
order); paths longer than `PATH_BYTES`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import zlib
from collections.abc import Iterable, Mapping

from crrl.sandbox.shared import SharedFiles, write_new

FILE_BYTES, TOTAL_BYTES, PATH_BYTES = 8 << 20, 32 << 20, 3500
GIT_SECONDS = 30
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
LISTING = "listing"  # in the host's git dir: `mode id path` of every file of the base, NUL-terminated
Entry = tuple[int, str]  # mode, object id


class PatchFailed(Exception):
    """git itself failed: our side."""


def read_listing(git_dir: str) -> dict[bytes, Entry]:
    with open(os.path.join(git_dir, LISTING), "rb") as file:
        rows = (row.split(b" ", 2) for row in file.read().split(b"\0") if row)
        return {path: (int(mode, 8), oid.decode()) for mode, oid, path in rows}


def write_listing(git_dir: str, base: Mapping[bytes, Entry]) -> None:
    with open(os.path.join(git_dir, LISTING), "wb") as file:
        file.writelines(b"%o %s %s\0" % (mode, oid.encode(), path) for path, (mode, oid) in base.items())


def overlay_patch(git_dir: str, upper: str, scratch: str) -> bytes:
    """The patch from the base in `git_dir` to the overlay whose upper layer is `upper`. Raises
    PatchFailed."""
    touched, hidden = _walk_upper(upper)
    return layer_patch(git_dir, touched, hidden, upper, scratch)


def layer_patch(
    git_dir: str, touched: Mapping[bytes, os.stat_result], hidden: set[bytes], upper: str, scratch: str
) -> bytes:
    """The same where the layer was walked elsewhere: `touched` lies in `upper`, what it hides is in `hidden`."""
    if not touched and not hidden:
        return b""
    base = read_listing(git_dir)
    gone = {p for p in base if p in hidden or any(parent in hidden for parent in _parents(p))}
    for path in touched:  # a file where a directory was, or the other way round
        gone.update(p for p in _parents(path) if p in base)
    under_files = touched.keys()
    gone.update(p for p in base if any(parent in under_files for parent in _parents(p)))
    return _patch(git_dir, base, touched, gone, upper, scratch)


def tree_patch(git_dir: str, root: str, scratch: str) -> bytes:
    """The same for a plain directory `root` (the `unsafe_host` back end): every file is looked at."""
    touched, _ = _walk_upper(root)
    base = read_listing(git_dir)
    return _patch(git_dir, base, touched, set(base), root, scratch)


def _patch(
    git_dir: str,
    base: Mapping[bytes, Entry],
    touched: Mapping[bytes, os.stat_result],
    gone: set[bytes],
    root: str,
    scratch: str,
) -> bytes:
    store = ObjectStore(os.path.join(scratch, "objects"))
    before: dict[bytes, Entry] = {p: base[p] for p in gone}
    after: dict[bytes, Entry] = {}
    left = TOTAL_BYTES
    for path in sorted(touched):
        info = touched[path]
        if (_excluded(path) and path not in base) or info.st_size > min(FILE_BYTES, left):
            if path in base:
                after[path] = before[path] = base[path]
            continue
        left -= info.st_size
        entry = _entry(os.path.join(os.fsencode(root), path), info, store)
        if path in base:
            before[path] = base[path]
        if entry is not None:
            after[path] = entry
    changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    if not changed:
        return b""
    old = store.tree({p: e for p, e in before.items() if p in changed})
    new = store.tree({p: e for p, e in after.items() if p in changed})
    return _diff(git_dir, store.path, old, new, scratch)


def _walk_upper(upper: str) -> tuple[dict[bytes, os.stat_result], set[bytes]]:
    """(files in the layer with their stat, paths whose lower version is hidden: whiteouts, opaque
    directories)."""
    files: dict[bytes, os.stat_result] = {}
    hidden: set[bytes] = set()
    stack = [b""]
    while stack:
        prefix = stack.pop()
        folder = os.path.join(os.fsencode(upper), prefix)
        if os.lstat(folder).st_mode & 0o500 != 0o500:
            os.chmod(folder, 0o700)
        for raw in os.listdir(folder):
            path = prefix + b"/" + raw if prefix else raw
            if raw.lower() == b".git" or len(path) > PATH_BYTES:
                continue
            full = os.path.join(folder, raw)
            info = os.lstat(full)
            if stat.S_ISDIR(info.st_mode):
                if _opaque(full):
                    hidden.add(path)
                stack.append(path)
            elif stat.S_ISCHR(info.st_mode):
                hidden.add(path)
            else:
                files[path] = info
    return files, hidden


def _opaque(folder: bytes) -> bool:
    try:
        return os.getxattr(folder, "user.overlay.opaque") == b"y"
    except OSError:
        return False


def _parents(path: bytes) -> Iterable[bytes]:
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)


def _excluded(path: bytes) -> bool:
    parts = path.split(b"/")
    return path.endswith(b".pyc") or b"__pycache__" in parts or b".pytest_cache" in parts


def _entry(path: bytes, info: os.stat_result, store: ObjectStore) -> Entry | None:
    if stat.S_ISLNK(info.st_mode):
        return 0o120000, store.add(b"blob", os.readlink(path))
    if not stat.S_ISREG(info.st_mode):
        return None
    if not info.st_mode & 0o400:
        os.chmod(path, 0o600)
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return (0o100755 if info.st_mode & 0o100 else 0o100644), store.add(b"blob", file.read())


class ObjectStore:
    """Loose git objects written with hashlib and zlib: no process, and exactly these bytes, whatever git is
    set to. `shared`: where they are linked from."""

    def __init__(self, path: str, shared: SharedFiles | None = None) -> None:
        self.path, self.shared = path, shared
        os.makedirs(path, exist_ok=True)

    def add(self, kind: bytes, data: bytes) -> str:
        whole = b"%s %d\0" % (kind, len(data)) + data
        oid = hashlib.sha1(whole, usedforsecurity=False).hexdigest()
        folder = os.path.join(self.path, oid[:2])
        file = os.path.join(folder, oid[2:])
        if not os.path.exists(file):
            os.makedirs(folder, exist_ok=True)
            if self.shared is None:
                write_new(file, 0o644, _compressed(whole))
            else:
                self.shared.put(whole, 0o644, file, _compressed)
        return oid

    def tree(self, entries: Mapping[bytes, Entry]) -> str:
        """The tree object that holds `entries` (path -> mode, id), with its subtrees."""
        here: list[tuple[bytes, int, str]] = []
        below: dict[bytes, dict[bytes, Entry]] = {}
        for path, (mode, oid) in entries.items():
            name, _, rest = path.partition(b"/")
            if rest:
                below.setdefault(name, {})[rest] = (mode, oid)
            else:
                here.append((name, mode, oid))
        here += [(name, 0o40000, self.tree(inside)) for name, inside in below.items()]
        here.sort(key=lambda e: e[0] + b"/" if e[1] == 0o40000 else e[0])  # git's own order
        return self.add(b"tree", b"".join(b"%o %s\0%s" % (m, n, bytes.fromhex(o)) for n, m, o in here))


def _compressed(content: bytes) -> bytes:
    return zlib.compress(content, 1)


def _diff(git_dir: str, objects: str, old: str, new: str, scratch: str) -> bytes:
    try:
        text = _git_diff(git_dir, objects, old, new, scratch, as_binary=False)
        text.decode("utf-8")
        return text
    except (UnicodeDecodeError, subprocess.TimeoutExpired):
        # Text in another encoding, or too hard to compare line by line: as binary differences, in ASCII.
        return _git_diff(git_dir, objects, old, new, scratch, as_binary=True)


def _git_diff(git_dir: str, objects: str, old: str, new: str, scratch: str, *, as_binary: bool) -> bytes:
    attributes = os.path.join(scratch, "attributes")
    with open(attributes, "w") as file:
        file.write("* -diff\n" if as_binary else "")
    settings = [f"core.attributesFile={attributes}", f"attr.tree={EMPTY_TREE}"]
    settings += [f"core.quotePath={'true' if as_binary else 'false'}"]
    argv = ["/usr/bin/git", f"--git-dir={git_dir}", *(x for s in settings for x in ("-c", s))]
    argv += ["diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff"]
    argv += ["--no-textconv", "--no-color"]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_OBJECT_DIRECTORY": objects,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(git_dir, "objects"),
    }
    with open(os.path.join(scratch, "patch"), "w+b") as out:
        done = subprocess.run(
            [*argv, old, new],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            env=env,
            cwd="/",
            timeout=GIT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise PatchFailed(done.stderr.decode("utf-8", "replace").strip()[:500] or f"git: {done.returncode}")
        out.seek(0)
        return out.read()
