"""The first program of a container: gives our exec server a writable layer, then drops the privileges it needed.

It runs as the container's root, under an interpreter that the host mounts read-only (`python.py`): no program of the
image runs before the privileges are gone. In order: it receives the host's order over the socket; mounts an overlay of
the image's whole root, with a size- and inode-limited tmpfs as upper layer; puts the host's `.git` in place of the
image's, and removes hidden paths (invariant 5); makes that root `/`; reduces the capabilities to `KEPT`, for good; and
installs the system call filter of every box (invariant 4). From then on it is `pid1.py`. When the host's end of the
socket closes, in whatever way, it ends, and the container with it; this cleans up after an owner that was killed.
"""

import _socket
import ctypes
import marshal
import os
import sys
import warnings  # noqa: F401  # os.execvpe imports it, by when there is nothing left to import from

HERE = "/.crrl"
DOOR = f"{HERE}/door/socket"
MS_NOSUID, MS_NODEV, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 2, 4, 4096, 8192, 16384, 1 << 18
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22
# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID: power over the container's own files and processes, which root in
# SWE-bench's images needs. Of Docker's set, dropped: raw sockets, devices, chroot, file capabilities, auditing.
KEPT = (0, 1, 3, 4, 5, 6, 7)
FROM_THE_ENGINE = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    control.connect(DOOR)
    message, passed, _, _ = control.recvmsg(1 << 16, _socket.CMSG_SPACE(4))
    output = int.from_bytes(passed[0][2], sys.byteorder)
    order = marshal.loads(message)
    limits = [order[name] for name in ("memory", "processes", "file", "open_files", "port")]
    sys.argv[1:] = [str(number) for number in (control.fileno(), output, *limits)]
    import pid1  # type: ignore[import-not-found]  # reads the arguments; later there is no /.crrl to read it from

    try:
        root = order["workdir"]
        user = identity(order["user"])
        layer = make_root(order, user)
        if order["find"] is not None:
            control.send(b"\0".join([b"found", *stores(order["find"])]))
            return
        give_up_power(order["seccomp"])
        os.makedirs(root, exist_ok=True)
        if not os.path.lexists("/workspace"):
            os.symlink(root, "/workspace")
    except BaseException as error:
        control.send(b"failed\0" + os.fsencode(f"{type(error).__name__}: {error}"[:2000]))
        raise
    pid1.ROOT, pid1.ENVIRONMENT, pid1.LAYER = root, dict(os.environ), layer
    pid1.FILES = ()  # the engine's limit counts them, beside the memory of `limits` (`api.Wanted.memory_bytes`)
    if user is not None:
        pid1.USER = user[:3]
        pid1.ENVIRONMENT["HOME"] = user[3]
    pid1.main()


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    args = [x.encode() if x is not None else None for x in (source, target, kind)]
    check(libc.mount(*args, ctypes.c_ulong(flags), data.encode()), f"mount {kind or source} on {target}")


def make_root(order, user):  # type: ignore[no-untyped-def]
    """The overlay becomes `/`. The path of its upper layer below the workspace."""
    at, workdir = f"{HERE}/disk", order["workdir"]
    new = f"{at}/root"
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    size = f"size={order['disk']},nr_inodes={order['inodes']},mode=0755"
    mount("tmpfs", at, "tmpfs", MS_NOSUID | MS_NODEV, size)
    for name in ("upper", "work", "root"):
        os.mkdir(f"{at}/{name}")
    lower = f"{HERE}/layer:/" if order["layer"] else "/"
    upper = os.open(f"{at}/upper", os.O_RDONLY | os.O_DIRECTORY)
    data = f"lowerdir={lower},upperdir={at}/upper,workdir={at}/work,userxattr"
    mount("overlay", new, "overlay", MS_NOSUID | MS_NODEV, data)
    if order["layer"]:
        same_owners(workdir, new, user)
    for path in order["hide"]:
        remove(new + path)
    shown = [path for path in FROM_THE_ENGINE if os.path.ismount(path)]
    for path in ["/proc", "/sys", "/dev", *shown, *order["mounts"]]:
        place_for(path, new)
        mount(path, new + path, None, MS_BIND | (0 if path in order["mounts"] else MS_REC))
    os.chdir(new)
    mount(".", "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    return f"/proc/self/fd/{upper}{workdir}"


def same_owners(workdir: str, new: str, user) -> None:  # type: ignore[no-untyped-def]
    """The host's layer contains `.git` and the folders above it. The folders get their owners from the image, and
    `.git` the user that works here (git refuses another user's)."""
    path = workdir
    while path != "/":
        if os.path.isdir(path):
            info = os.stat(path)
            os.chown(new + path, info.st_uid, info.st_gid)
            os.chmod(new + path, info.st_mode & 0o7777)
        path = os.path.dirname(path)
    info = os.stat(new + workdir)
    uid, gid = user[:2] if user is not None else (info.st_uid, info.st_gid)
    for folder, _, names in os.walk(f"{new}{workdir}/.git"):
        files = [] if "/objects" in folder else names  # those are never changed
        for place in (folder, *(os.path.join(folder, name) for name in files)):
            if os.lstat(place).st_uid != uid:
                os.chown(place, uid, gid, follow_symlinks=False)


def place_for(path: str, new: str) -> None:
    if os.path.isdir(path):
        os.makedirs(new + path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(new + path), exist_ok=True)
    if not os.path.exists(new + path):
        os.close(os.open(new + path, os.O_WRONLY | os.O_CREAT, 0o644))


def remove(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        if os.path.lexists(path):
            os.unlink(path)
        return
    for name in os.listdir(path):
        remove(os.path.join(path, name))
    os.rmdir(path)


def stores(commits: list[str]) -> list[bytes]:
    """Git stores anywhere in the image with one of these commits: they may hold its future."""
    found, ids = [], [bytes.fromhex(commit) for commit in commits]
    for folder, folders, names in os.walk(b"/"):
        if folder == b"/":
            folders[:] = [name for name in folders if name not in (b"proc", b"sys", b"dev", b".crrl")]
        if b"HEAD" not in names or b"objects" not in folders:
            continue
        objects = os.path.join(folder, b"objects")
        loose = [os.path.join(objects, c[:2].encode(), c[2:].encode()) for c in commits]
        packs = os.path.join(objects, b"pack")
        listed = os.listdir(packs) if os.path.isdir(packs) else []
        indexes = [os.path.join(packs, name) for name in listed if name.endswith(b".idx")]
        if any(map(os.path.exists, loose)) or any(id in contents(index) for index in indexes for id in ids):
            found.append(folder)
    return found


def give_up_power(program: bytes) -> None:
    """Root keeps only `KEPT`, for good; then the filter, which also forbids mounts and namespaces."""
    last = int(contents(b"/proc/sys/kernel/cap_last_cap"))
    for number in range(last + 1):
        if number not in KEPT:
            check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"capability {number}")
    kept = sum(1 << number for number in KEPT)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; numbers from 32 likewise
    check(libc.capset(header, sets), "capset")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    text = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    filter = Program(len(program) // 8, ctypes.cast(text, ctypes.c_void_p))
    check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(filter), 0, 0), "seccomp")


def identity(user: str):  # type: ignore[no-untyped-def]
    """(uid, gid, groups, home) of an image's USER (`name`, `uid`, `name:group`, `uid:gid`); None: root."""
    name, _, group = user.partition(":")
    if name in ("", "0", "root"):
        return None
    rows = [line.split(":") for line in lines("/etc/passwd")]
    row = next((r for r in rows if len(r) > 5 and name in (r[0], r[2])), None)
    if row is None and not name.isdigit():
        raise ValueError(f"the image's USER {name} is not in its /etc/passwd")
    uid, gid, home = (int(row[2]), int(row[3]), row[5]) if row is not None else (int(name), 0, "/")
    groups = [line.split(":") for line in lines("/etc/group")]
    if group:
        found = next((g for g in groups if len(g) > 2 and group in (g[0], g[2])), None)
        gid = int(found[2]) if found is not None else int(group)
    others = [int(g[2]) for g in groups if len(g) > 3 and row is not None and row[0] in g[3].split(",")]
    return uid, gid, others, home


def lines(path: str) -> list[str]:
    return contents(os.fsencode(path)).decode(errors="replace").splitlines() if os.path.exists(path) else []


def contents(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    main()
