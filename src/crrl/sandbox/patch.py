"""The patch of a workspace: one `git diff-tree` over two small trees that we write ourselves (invariant 3).

The overlay's upper layer names every path that an episode touched, so nothing depends on the agent's `.git`, index,
attributes, ignore files or hooks, and the cost does not grow with the repository. The changed files become objects in a
throw-away directory, two trees hold only the changed paths, before and after, and git compares them. The patch is
UTF-8: other names are quoted, other contents are binary differences (`binary_diff`). It is made in the box's keeper: as
the unprivileged uid, with limits, in a mount namespace that ends with the box.

Left out: paths with a `.git` component, `__pycache__`, `.pytest_cache`, `*.pyc` unless they are part of the
base; devices, pipes and sockets; new content beyond `FILE_BYTES` a file and `TOTAL_BYTES` in all (in path
order); paths longer than `PATH_BYTES`.
"""

from __future__ import annotations

import base64
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
Pair = tuple[Entry | None, Entry | None]  # before, after


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
    """The same, for a layer that was walked elsewhere: `touched` are its files in `upper`, `hidden` the paths it
    hides."""
    if not touched and not hidden:
        return b""
    base = read_listing(git_dir)
    gone = {p for p in base if p in hidden or any(parent in hidden for parent in _parents(p))}
    for path in touched:  # a file where a directory was, or the other way round
        gone.update(p for p in _parents(path) if p in base)
    under_files = touched.keys()
    gone.update(p for p in base if any(parent in under_files for parent in _parents(p)))
    return _patch(git_dir, base, touched, gone, upper, scratch)


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
    pairs = {p: (before.get(p), after.get(p)) for p in sorted(changed)}
    return _diff(git_dir, store, pairs, scratch)


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
    """Loose git objects, written with hashlib and zlib: no process, and the same bytes whatever git's settings.
    `shared`: the store to link them from."""

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


def _diff(git_dir: str, store: ObjectStore, pairs: Mapping[bytes, Pair], scratch: str) -> bytes:
    """git's text differences. Files that are not text, in name or content, are left to `binary_diff`, so they hide
    nothing of the others."""
    try:
        text = _git_diff(git_dir, store, pairs, scratch)
        if _is_text(text) and b"\nGIT binary patch\n" not in text:
            return text
        plain = _plain(git_dir, store, pairs, scratch)
        text = _git_diff(git_dir, store, plain, scratch) if plain else b""
    except subprocess.TimeoutExpired:  # too hard to compare line by line
        plain, text = {}, b""
    rest = {path: pair for path, pair in pairs.items() if path not in plain}
    blobs = _blobs(git_dir, store, rest.values(), scratch)
    return text + b"".join(binary_diff(path, pair, blobs) for path, pair in rest.items())


def _plain(git_dir: str, store: ObjectStore, pairs: Mapping[bytes, Pair], scratch: str) -> dict[bytes, Pair]:
    """Those that are text."""
    blobs = _blobs(git_dir, store, pairs.values(), scratch)
    return {
        path: pair
        for path, pair in pairs.items()
        if _is_text(path) and all(_is_text(blobs[side[1]]) for side in pair if side is not None)
    }


def _is_text(data: bytes) -> bool:
    """Whether a patch can hold it unencoded."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _git_diff(git_dir: str, store: ObjectStore, pairs: Mapping[bytes, Pair], scratch: str) -> bytes:
    old = store.tree({path: pair[0] for path, pair in pairs.items() if pair[0] is not None})
    new = store.tree({path: pair[1] for path, pair in pairs.items() if pair[1] is not None})
    attributes = os.path.join(scratch, "attributes")
    with open(attributes, "w"):
        pass
    settings = [f"core.attributesFile={attributes}", f"attr.tree={EMPTY_TREE}", "core.quotePath=false"]
    argv = [*(x for s in settings for x in ("-c", s)), "diff-tree", "-r", "-p", "--binary", "--full-index"]
    argv += ["--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", old, new]
    return _git(git_dir, store, argv, scratch)


def _blobs(git_dir: str, store: ObjectStore, pairs: Iterable[Pair], scratch: str) -> dict[str, bytes]:
    """Object id -> content, of both sides."""
    listed = sorted({side[1] for pair in pairs for side in pair if side is not None})
    out = _git(git_dir, store, ["cat-file", "--batch"], scratch, "".join(f"{oid}\n" for oid in listed))
    found, at = {}, 0
    for oid in listed:  # `id blob size`, the content, a line's end
        line = out[at : out.index(b"\n", at)]
        start = at + len(line) + 1
        end = start + int(line.split()[2])
        found[oid], at = out[start:end], end + 1
    return found


def _git(git_dir: str, store: ObjectStore, argv: list[str], scratch: str, given: str = "") -> bytes:
    """Runs git and returns its output. Raises PatchFailed, TimeoutExpired."""
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_OBJECT_DIRECTORY": store.path,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.path.join(git_dir, "objects"),
    }
    with open(os.path.join(scratch, "patch"), "w+b") as out:
        done = subprocess.run(
            ["/usr/bin/git", f"--git-dir={git_dir}", *argv],
            input=given.encode(),
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


def binary_diff(path: bytes, pair: Pair, blobs: Mapping[str, bytes]) -> bytes:
    """git's binary difference with both sides whole, as `git apply` reads it, in ASCII. git itself writes one side
    as a delta of the other, which is useless to a reader who has neither."""
    old, new = pair
    if old is not None and new is not None and stat.S_IFMT(old[0]) != stat.S_IFMT(new[0]):
        return binary_diff(path, (old, None), blobs) + binary_diff(path, (None, new), blobs)
    name = [_quoted(prefix + path) for prefix in (b"a/", b"b/")]
    lines = [b"diff --git %s %s" % (name[0], name[1])]
    if old is None or new is None:
        entry = old or new
        assert entry is not None
        lines += [b"%s file mode %o" % (b"new" if old is None else b"deleted", entry[0])]
    elif old[0] != new[0]:
        lines += [b"old mode %o" % old[0], b"new mode %o" % new[0]]
    ids = [side[1] if side is not None else "0" * 40 for side in pair]
    if ids[0] != ids[1]:
        lines += [f"index {ids[0]}..{ids[1]}".encode(), b"GIT binary patch"]
        for side in (new, old):
            data = blobs[side[1]] if side is not None else b""
            packed = zlib.compress(data, 6)
            lines.append(b"literal %d" % len(data))
            for at in range(0, len(packed), 52):
                chunk = packed[at : at + 52]
                length = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[len(chunk) - 1 : len(chunk)]
                lines.append(length + base64.b85encode(chunk, pad=True))
            lines.append(b"")
    return b"\n".join(lines) + b"\n"


def _quoted(name: bytes) -> bytes:
    """As git quotes names, where one has what needs it."""
    if all(0x20 <= byte < 0x7F and byte not in b'"\\' for byte in name):
        return name
    return b'"' + b"".join(b"\\%03o" % c if c < 0x20 or c >= 0x7F or c in b'"\\' else bytes([c]) for c in name) + b'"'
