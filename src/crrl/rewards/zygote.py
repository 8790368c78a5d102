"""The judge's warm interpreter: a zygote with trusted imports only, forked anew for every judged run.

Runs inside the judge's outer sandbox as its PID 1, under the system interpreter, standard library and pytest
only: never imports `crrl`, never sees a task. Four trusted roles, one process each, all forks of this one:

    zygote      waits for runs; per run gets one socket by SCM_RIGHTS and forks
    supervisor  outside the judged pid namespace: holds the report's key, the clock, what counts
    init        PID 1 of fresh user, pid, mount, net, ipc and uts namespaces: mounts, files, memory watchdog
    test        the only one that runs patched code (`inside.py`): no capabilities, seccomp, own limits

Invariant 3: the namespaces exist before the workspace is loaded, the test process is not believed (its report
counts only whole and under a key made after it was forked), and it never judges again.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import hashlib
import hmac
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CLONE_NEW = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user ns pid net ipc uts
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
UNWRITTEN, FULL, QUIET = 74, 75, 76  # init's exit codes; 71: too much memory
REPORT_LIMIT, OUTPUT_LIMIT, DIGEST = 16 << 20, 16 << 10, 32

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    check(
        libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode()),
        f"mount {target}",
    )


def read_exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        chunk = sock.recv(min(size - len(parts), 1 << 20))
        if not chunk:
            raise EOFError
        parts += chunk
    return bytes(parts)


def read_frame(sock: socket.socket) -> dict:
    (size,) = struct.unpack("!I", read_exactly(sock, 4))
    return json.loads(read_exactly(sock, size))


def write_frame(sock: socket.socket, message: dict) -> None:
    data = json.dumps(message).encode()
    sock.sendall(struct.pack("!I", len(data)) + data)


# --- zygote ---------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork one supervisor per socket received; end when the owner is gone (every run ends with PID 1)."""
    gc.collect()
    gc.freeze()  # forks then touch fewer pages
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    control.send(b"ready")
    while True:
        ready, _, _ = select.select([control.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        if control.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(control, 16, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (control.detach(), wake, waker):
                os.close(fd)
            with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
                supervise(socket.socket(fileno=fds[0]), fds[1:])
            os._exit(0)
        for fd in fds:
            os.close(fd)


# --- supervisor -----------------------------------------------------------------------------------


def supervise(host: socket.socket, group: list[int]) -> None:
    """`group`: of the run's cgroup: the counter of kills, and one to join by each hierarchy; []: there is none."""
    request = read_frame(host)
    started = time.monotonic()
    try:
        reply = run_once(host, group, request, started + request["timeout_s"])
    except OSError as error:
        reply = {"lost": f"{error}"}
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    reply["cpu_s"] = sum(u.ru_utime + u.ru_stime for u in usage)
    reply["wall_s"] = time.monotonic() - started
    write_frame(host, reply)


def run_once(host: socket.socket, group: list[int], request: dict, deadline: float) -> dict:
    uid, gid = os.getuid(), os.getgid()
    report, report_in = socket.socketpair()
    output, output_in = os.pipe()
    check(libc.unshare(CLONE_NEW), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    bring_up_loopback()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    init = os.fork()
    if init == 0:
        code = 70
        try:
            host.close()
            report.close()
            os.close(output)
            code = run_init(request, group, report_in, output_in)
        except OSError as error:
            os.write(output_in, f"\0setup: {error}".encode())
        finally:
            os._exit(code)
    report_in.close()
    os.close(output_in)
    key = os.urandom(DIGEST)  # made after the fork: no copy of it exists in the judged namespaces but the one sent
    with contextlib.suppress(BrokenPipeError):
        report.sendall(key)
    reported, printed, reason = collect(host, report, output, init, deadline)
    code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
    return {"output": printed.decode("utf-8", "replace")} | judge_report(reported, key, reason, code, printed)


def bring_up_loopback() -> None:
    """Of the run's own network, in which there is nothing else: servers of its tests answer on localhost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def collect(
    host: socket.socket, report: socket.socket, output: int, init: int, deadline: float
) -> tuple[bytes, bytes, str]:
    """Read report and output until the judged namespace is gone, killing it at the deadline."""
    ended = os.pidfd_open(init)
    os.set_blocking(output, False)
    report.setblocking(False)
    poll = select.poll()
    for fd in (host.fileno(), report.fileno(), output, ended):
        poll.register(fd, select.POLLIN)
    reported, head, tail, reason, dead = bytearray(), bytearray(), bytearray(), "", False

    def drain(fd: int) -> None:
        nonlocal tail
        while True:
            try:
                chunk = os.read(fd, 1 << 16)
            except (BlockingIOError, ConnectionResetError):
                return
            if not chunk:
                poll.unregister(fd)
                return
            if fd != output:
                if len(reported) <= REPORT_LIMIT:
                    reported.extend(chunk)
            else:
                room = max(0, OUTPUT_LIMIT // 2 - len(head))
                head.extend(chunk[:room])
                tail = (tail + chunk[room:])[-OUTPUT_LIMIT // 2 :]
            if not dead:
                return  # back to the clock: endless output must not starve it

    while not dead:
        left = deadline - time.monotonic()
        events = poll.poll(max(0.0, left) * 1000) if left > 0 else []
        if not events:
            reason, dead = reason or "timeout", True
            break
        for fd, _ in events:
            if fd == host.fileno():
                reason, dead = "cancelled", True
            elif fd == ended:
                dead = True
            else:
                drain(fd)
    with contextlib.suppress(ProcessLookupError):
        os.kill(init, signal.SIGKILL)
    if not reason:
        for fd in (report.fileno(), output):
            with contextlib.suppress(KeyError, OSError):
                drain(fd)
    return bytes(reported), bytes(head + tail), reason


def judge_report(reported: bytes, key: bytes, reason: str, code: int, printed: bytes) -> dict:
    """What the run is worth. Only a whole report under the key counts; else no test has passed."""
    if reason:
        return {"reason": reason}
    filled = {"exploits": ["filled_disk"]} if code == FULL else {}
    digest, body = reported[:DIGEST], reported[DIGEST:]
    if len(digest) == DIGEST and hmac.compare_digest(
        digest, hashlib.blake2b(body, key=key, digest_size=DIGEST).digest()
    ):
        tests = tests_in(body)
        if tests is not None:
            return {"reason": "complete", "tests": tests} | filled
    if reported:
        return {"reason": "no_marker", "exploits": ["forged_report"]}
    if code == 70 and b"\0setup: " in printed:
        return {"lost": printed.decode("utf-8", "replace")}
    if code == QUIET:  # a process that ran no test to its end and says that all is well
        return {"reason": "no_marker", "exploits": ["early_exit"]}
    return {"reason": {71: "memory", UNWRITTEN: "patch_refused", FULL: "disk"}.get(code, "no_marker")} | filled


def tests_in(body: bytes) -> list | None:
    """(test id, status) pairs, and nothing else that the judged process may have written; None where it wrote no such
    report."""
    try:
        pairs = json.loads(body)["tests"]
        texts = all(type(id) is str and type(status) is str for id, status in pairs)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return pairs if texts else None


# --- init: PID 1 of the judged namespaces ---------------------------------------------------------


def run_init(request: dict, group: list[int], report: socket.socket, output: int) -> int:
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
    memory_use.begin()
    test = os.fork()
    if test == 0:
        try:
            become_untrusted(limits, group, output)
            import inside  # type: ignore[import-not-found]

            inside.judge(request, report.detach())
        finally:
            os._exit(72)
    report.close()
    os.close(output)
    ended = select.poll()
    ended.register(os.pidfd_open(test), select.POLLIN)
    limit, wait_s = limits["memory_bytes"], memory_use.LONGEST_S
    while not ended.poll(1000 * wait_s):
        used = 0 if group else memory_use.held(limit, ("/workspace", "/tmp", "/dev/shm"))
        if used > limit or kills(group):
            return 71
        if not group:
            wait_s = memory_use.next_sample_s(limit, used)
    code = os.waitstatus_to_exitcode(os.waitpid(test, 0)[1])
    if kills(group):
        return 71
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


# --- test: what patched code gets -----------------------------------------------------------------


def become_untrusted(limits: dict, group: list[int], output: int) -> None:
    os.setsid()
    for fd in group[1:]:
        os.write(fd, b"0")
    if not group:
        memory_use.confine(lambda operation, argument: libc.prctl(operation, argument, 0, 0, 0))
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
    check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(SECCOMP), 0, 0), "seccomp")


class SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load_seccomp(path: str) -> SockFprog:
    with open(path, "rb") as file:
        program = file.read()
    return SockFprog(len(program) // 8, program)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if p and p != here]
    sys.path[:0] = [here, os.path.join(here, "site")]
    SECCOMP = load_seccomp(os.path.join(here, "seccomp.bpf"))
    import inside  # noqa: F401  (pytest and what it needs, imported once)
    import memory_use  # type: ignore[import-not-found]

    os.environ.clear()
    serve(socket.socket(fileno=int(sys.argv[1])))
