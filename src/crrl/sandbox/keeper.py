"""The keeper of one box: a fork of the launcher that owns the box's mounts and lives on to take the patch.

As the unprivileged uid, in its own user and mount namespaces, it mounts two tmpfs with size and inode limits (the
workspace's writable layer; /tmp, HOME and /dev/shm) and the overlay, and starts bubblewrap on top with everything
unshared. No file of an episode is on a disk: when the keeper ends, in whatever way, its namespaces and their tmpfs are
gone (invariant 4).

Protocol with `bubblewrap.py`, over a SOCK_SEQPACKET descriptor:
    patch -> `ok` with a memory file that holds the patch | `error` text        (kills the box first)
    close -> (kills the box; end of file when nothing of it is left)
Unasked: `exited` text, if the box ends too early.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import time
from typing import Any, NoReturn

from crrl.sandbox import patch

libc = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
BOX = """
--unshare-user --disable-userns --unshare-pid --as-pid-1 --unshare-ipc --unshare-uts --unshare-cgroup-try
--unshare-net --uid 1000 --gid 1000 --hostname box --new-session --die-with-parent --cap-drop ALL
--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib
--symlink usr/lib64 /lib64 --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --ro-bind-try /etc/ssl /etc/ssl
--ro-bind-try /etc/alternatives /etc/alternatives --ro-bind-try /etc/localtime /etc/localtime
--proc /proc --dev /dev
"""
ETC = {
    "passwd": b"agent:x:1000:1000:agent:/home/agent:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": b"agent:x:1000:\nnogroup:x:65534:\n",
    "hosts": b"127.0.0.1 localhost box\n::1 localhost\n",
}


def run(
    launcher: int, channel: socket.socket, control: int, output: int, group: list[int], order: dict[str, Any]
) -> NoReturn:
    """Everything from the fork to the end of the box. Never returns. `group`: of its cgroup, for its PID 1."""
    code = 1
    try:
        confine(launcher, order["uid"])
        make_mounts(order)
        box, stderr = start_box(control, output, group, order)
        for fd in (control, output, *group):
            os.close(fd)
        serve(channel, box, stderr, order)
        code = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            channel.send(f"exited {type(error).__name__}: {error}".encode()[:4000])
    finally:
        with contextlib.suppress(BaseException):
            kill_box()
        os._exit(code)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def confine(launcher: int, uid: int) -> None:
    """Drops root for good: as host root, a mapped uid 1000 without capabilities could still read /etc/shadow."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")  # or /proc/self/uid_map belongs to root
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != launcher:
        os._exit(1)
    gid = os.getgid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(fd, text.encode())
        os.close(fd)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    args = [x.encode() if x is not None else None for x in (source, target, kind)]
    check(libc.mount(*args, ctypes.c_ulong(flags), data.encode()), f"mount {kind or ''} on {target}")


def make_mounts(order: dict[str, Any]) -> None:
    lower = os.open(order["lower"], os.O_PATH | os.O_DIRECTORY) if order["lower"] else None
    at = order["mount_point"]
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(
        "tmpfs",
        at,
        "tmpfs",
        MS_NOSUID | MS_NODEV,
        f"size={order['tmp']},nr_inodes={order['inodes']},mode=0755",
    )
    os.mkdir(f"{at}/disk")
    os.mkdir(f"{at}/workspace")
    for name in ("tmp", "home", "shm"):
        os.mkdir(f"{at}/{name}")
        os.chmod(f"{at}/{name}", 0o755 if name == "home" else 0o1777)
    for name, text in ETC.items():
        with open(f"{at}/{name}", "wb") as file:
            file.write(text)
    disk = f"size={order['disk']},nr_inodes={order['inodes']},mode=0755"
    mount("tmpfs", f"{at}/disk", "tmpfs", MS_NOSUID | MS_NODEV, disk)
    os.mkdir(f"{at}/disk/upper")
    if lower is None:
        mount(f"{at}/disk/upper", f"{at}/workspace", None, 4096)  # MS_BIND
        return
    os.mkdir(f"{at}/disk/work")
    # By descriptor: commas and colons in a path would split it.
    upper, work = (os.open(f"{at}/disk/{name}", os.O_PATH | os.O_DIRECTORY) for name in ("upper", "work"))
    fd = "/proc/self/fd/"
    data = f"lowerdir={fd}{lower},upperdir={fd}{upper},workdir={fd}{work},userxattr"
    mount("overlay", f"{at}/workspace", "overlay", MS_NOSUID | MS_NODEV, data)
    for number in (lower, upper, work):
        os.close(number)


def start_box(control: int, output: int, group: list[int], order: dict[str, Any]) -> tuple[int, int]:
    at = order["mount_point"]
    binds = [("--bind", f"{at}/{name}", to) for name, to in (("tmp", "/tmp"), ("shm", "/dev/shm"))]
    binds += [("--bind", f"{at}/home", "/home/agent"), ("--bind", f"{at}/workspace", "/workspace")]
    binds += [("--ro-bind", f"{at}/{name}", f"/etc/{name}") for name in ETC]
    binds += [("--ro-bind", order["pid1"], "/.crrl")]
    binds += [("--ro-bind", source, target) for source, target in order["mounts"]]
    stderr, seccomp = os.memfd_create("stderr"), os.memfd_create("seccomp")
    os.write(seccomp, order["seccomp"])
    os.lseek(seccomp, 0, os.SEEK_SET)
    for fd in (control, output, seccomp, *group):
        os.set_inheritable(fd, True)
    limits = [str(order[name]) for name in ("memory", "processes", "file", "open_files", "port")]
    argv = ["bwrap", *BOX.split(), "--seccomp", str(seccomp), *(x for bind in binds for x in bind)]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/workspace", "--clearenv"]
    argv += ["/usr/bin/python3", "-ISE", "/.crrl/pid1.pyc", str(control), str(output), *limits, *map(str, group)]
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    actions = [*null, (os.POSIX_SPAWN_DUP2, stderr, 2)]
    pid = os.posix_spawn(order["bwrap"], argv, {"PATH": "/usr/bin:/bin"}, file_actions=actions)
    os.close(seccomp)
    return pid, stderr


def serve(channel: socket.socket, box: int, stderr: int, order: dict[str, Any]) -> None:
    ended_r, ended_w = os.pipe()
    for fd in (ended_r, ended_w):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ended_w, warn_on_full_buffer=False)
    told = False
    while True:
        if not told and os.waitpid(box, os.WNOHANG)[0] == box:
            os.lseek(stderr, 0, os.SEEK_SET)
            channel.send(b"exited " + os.read(stderr, 4000).strip())
            told = True
        ready, _, _ = select.select([channel.fileno(), ended_r], [], [])
        if ended_r in ready:
            os.read(ended_r, 4096)
        if channel.fileno() not in ready:
            continue
        message = channel.recv(64)
        if message != b"patch":
            return
        kill_box()
        told = True
        send_patch(channel, order)


def kill_box() -> None:
    """Wait until no process of the box is left. Its PID 1 dies with bubblewrap, and we reap it (subreaper)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            for pid in file.read().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.0005)
    raise TimeoutError("the box's processes do not end")


def send_patch(channel: socket.socket, order: dict[str, Any]) -> None:
    at = order["mount_point"]
    try:
        for limit, value in ((resource.RLIMIT_AS, 2 << 30), (resource.RLIMIT_FSIZE, 256 << 20)):
            resource.setrlimit(limit, (value, value))
        # The box is gone. Its /tmp may have been full, so the patch gets a small file system of its own.
        mount("tmpfs", f"{at}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=512m,mode=0700")
        text = patch.overlay_patch(order["git_dir"], f"{at}/disk/upper", f"{at}/tmp")
    except Exception as error:
        channel.send(f"error {type(error).__name__}: {error}".encode()[:4000])
        return
    memory = os.memfd_create("patch")
    with open(memory, "wb", closefd=False) as file:
        file.write(text)
    socket.send_fds(channel, [b"ok"], [memory])
    os.close(memory)
