"""The judged namespaces from within: PID 1 of a run (init), and the process that patched code gets (test).

Forked by the supervisor (`zygote.py`) into fresh user, pid, mount, net, ipc and uts namespaces, under the system
interpreter, standard library only. Init builds the mounts, writes the patched checkout, hides the rest of the state
folder, and watches memory; what it forks gives up every power before a line of the patch runs.

Invariant 4: judged code sees its own checkout, its environment and pytest, and holds no more memory than its limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket

import memory_watch  # type: ignore[import-not-found]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
BROKEN, TOO_MUCH_MEMORY, UNWRITTEN, FULL, QUIET = 70, 71, 74, 75, 76  # init's exit codes

libc = ctypes.CDLL(None, use_errno=True)


class SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_seccomp = SockFprog()


def load_seccomp(path: str) -> None:
    """Once, before anything is forked: the file is out of reach of the judged namespaces."""
    with open(path, "rb") as file:
        program = file.read()
    _seccomp.len, _seccomp.filter = len(program) // 8, program


def check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    check(
        libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode()),
        f"mount {target}",
    )


def run(request: dict, group: list[int], report: socket.socket, output: int) -> int:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    limits = request["limits"]
    build_mounts(request, limits)
    try:
        for path, entry in request["files"].items():
            write_entry(path, entry)
    except OSError as error:
        os.write(output, f"the patched files cannot be written: {error}".encode())
        return FULL if error.errno == errno.ENOSPC else UNWRITTEN  # the patch's own doing
    hide_the_rest()
    if not group:
        memory_watch.begin()
    ours, theirs = socket.socketpair()
    test = os.fork()
    if test == 0:
        try:
            ours.close()
            become_untrusted(limits, group, output, theirs)
            import inside  # type: ignore[import-not-found]

            inside.judge(request, report.detach())
        finally:
            os._exit(72)
    report.close()
    os.close(output)
    ended = select.poll()
    ended.register(os.pidfd_open(test), select.POLLIN)
    theirs.close()
    _, received, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    folders = ("/workspace", "/tmp", "/dev/shm")
    watch = (
        None if group else memory_watch.Watch(limits["memory_bytes"], folders, {test: received[0]} if received else {})
    )
    while not ended.poll(1000 * (watch.wait_s if watch else memory_watch.LONGEST_S)):
        if watch.sample() if watch else kills(group):
            return TOO_MUCH_MEMORY
    code = os.waitstatus_to_exitcode(os.waitpid(test, 0)[1])
    if kills(group):
        return TOO_MUCH_MEMORY
    if any(full(path) for path in ("/workspace", "/tmp")):
        return FULL
    return QUIET if code == 0 else 0  # PID 1 ends: the kernel kills whatever the test left behind


def full(path: str) -> bool:
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize < 1 << 16 or space.f_favail == 0


def build_mounts(request: dict, limits: dict) -> None:
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    flags = MS_NOSUID | MS_NODEV
    size = f"size={limits['disk_bytes']},nr_inodes={limits['inodes']},mode=0755"
    if request.get("lower"):
        mount("tmpfs", "/scratch", "tmpfs", flags, size)
        os.mkdir("/scratch/upper")
        os.mkdir("/scratch/work")
        layers = f"lowerdir=/state/{request['lower']},upperdir=/scratch/upper,workdir=/scratch/work,userxattr"
        mount("overlay", "/workspace", "overlay", flags, layers)
        mount("tmpfs", "/scratch", "tmpfs", flags | MS_RDONLY, "size=4k,nr_inodes=1")
    else:
        mount("tmpfs", "/workspace", "tmpfs", flags, size)
    if request.get("environment"):  # read-only, as /state is
        mount(f"/state/{request['environment']}", "/environment", None, MS_BIND)
    small = f"size={limits['tmp_bytes']},nr_inodes={limits['inodes']}"
    mount("tmpfs", "/tmp", "tmpfs", flags, small)
    mount("tmpfs", "/dev/shm", "tmpfs", flags | MS_NOEXEC, small)
    mount("proc", "/proc", "proc", flags | MS_NOEXEC)


def hide_the_rest() -> None:
    """Of the state folder and of the judge's own: what is left is this run's checkout, its environment and pytest."""
    flags = MS_NOSUID | MS_NODEV
    mount("tmpfs", "/state", "tmpfs", flags | MS_RDONLY, "size=4k,nr_inodes=1")
    site = os.open("/harness/site", os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", "/harness", "tmpfs", flags, "size=4k,nr_inodes=2")
    os.mkdir("/harness/site")
    mount(f"/proc/self/fd/{site}", "/harness/site", None, MS_BIND)
    os.close(site)
    mount("none", "/harness", None, MS_BIND | MS_REMOUNT | MS_RDONLY | flags)


def write_entry(path: str, entry: dict | None) -> None:
    """One file of the patched checkout. No symlink of the tree is followed on the way."""
    full = os.path.join("/workspace", path)
    parent = os.path.dirname(full)
    above = "/workspace"
    for part in path.split("/")[:-1]:
        above = os.path.join(above, part)
        if os.path.islink(above) or os.path.isfile(above):
            os.unlink(above)
    os.makedirs(parent, exist_ok=True)
    if os.path.realpath(parent) != parent:
        raise OSError(f"{path}: leaves the checkout")
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(full) and not os.path.islink(full):  # of files that are gone
            for folder, _, _ in os.walk(full, topdown=False):
                os.rmdir(folder)
        else:
            os.unlink(full)
    if entry is None:
        return
    if "link" in entry:
        os.symlink(entry["link"], full)
        return
    data = entry["text"].encode() if "text" in entry else bytes.fromhex(entry["hex"])
    fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o755 if entry.get("exec") else 0o644)
    with open(fd, "wb", buffering=0) as file:
        file.write(data)


def kills(group: list[int]) -> int:
    """How many processes of this run the kernel has killed at its memory limit."""
    for line in os.pread(group[0], 4096, 0).decode().splitlines() if group else ():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def hand_weight_to(init: socket.socket) -> None:
    """The weight of this session: init cannot open it, because this process hides all it has in /proc."""
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    weight = memory_watch.own_weight()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if weight >= 0:
        socket.send_fds(init, [b"w"], [weight])
        os.close(weight)


def become_untrusted(limits: dict, group: list[int], output: int, init: socket.socket) -> None:
    os.setsid()
    for fd in group[1:]:
        os.write(fd, b"0")
    if not group:
        memory_watch.confine()
        hand_weight_to(init)
    init.close()
    for fd in group:
        os.close(fd)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    for name in ("DATA", "FSIZE", "NPROC", "NOFILE", "CPU"):
        value = limits[name.lower()]
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_MSGQUEUE, 0), (resource.RLIMIT_MEMLOCK, 1 << 20)):
        resource.setrlimit(limit, (value, value))
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # /proc/self/mem is closed, to its own children too
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(_seccomp), 0, 0), "seccomp")
