"""The judge's warm interpreter: a zygote with trusted imports only, forked anew for every judged run.

Runs inside the judge's outer sandbox as its PID 1, under the system interpreter, standard library and pytest
only: never imports `crrl`, never sees a task. Four roles, one process each, all forks of this one; the first two are
here, the others in `judged_init.py`:

    zygote      waits for runs; per run gets one socket by SCM_RIGHTS and forks
    supervisor  outside the judged pid namespace: holds the report's key, the clock, what counts
    init        PID 1 of fresh user, pid, mount, net, ipc and uts namespaces: mounts, files, memory watchdog
    test        the only one that runs patched code (`inside.py`): no capabilities, seccomp, own limits

Invariant 3: the namespaces exist before the workspace is loaded, the test process is not believed (its report
counts only whole and under a key made after it was forked), and it never judges again.
"""

from __future__ import annotations

import contextlib
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
REPORT_LIMIT, OUTPUT_LIMIT, DIGEST = 16 << 20, 16 << 10, 32


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
    init.check(init.libc.unshare(CLONE_NEW), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    bring_up_loopback()
    init.libc.prctl(init.PR_SET_DUMPABLE, 0, 0, 0, 0)
    pid = os.fork()
    if pid == 0:
        code = init.BROKEN
        try:
            host.close()
            report.close()
            os.close(output)
            code = init.run(request, group, report_in, output_in)
        except OSError as error:
            os.write(output_in, f"\0setup: {error}".encode())
        finally:
            os._exit(code)
    report_in.close()
    os.close(output_in)
    key = os.urandom(DIGEST)  # made after the fork: no copy of it exists in the judged namespaces but the one sent
    with contextlib.suppress(BrokenPipeError):
        report.sendall(key)
    reported, printed, reason = collect(host, report, output, pid, deadline)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"output": printed.decode("utf-8", "replace")} | judge_report(reported, key, reason, code, printed)


def bring_up_loopback() -> None:
    """Of the run's own network, in which there is nothing else: servers of its tests answer on localhost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def collect(
    host: socket.socket, report: socket.socket, output: int, pid: int, deadline: float
) -> tuple[bytes, bytes, str]:
    """Read report and output until the judged namespace is gone, killing it at the deadline."""
    ended = os.pidfd_open(pid)
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
        os.kill(pid, signal.SIGKILL)
    if not reason:
        for fd in (report.fileno(), output):
            with contextlib.suppress(KeyError, OSError):
                drain(fd)
    return bytes(reported), bytes(head + tail), reason


def judge_report(reported: bytes, key: bytes, reason: str, code: int, printed: bytes) -> dict:
    """What the run is worth. Only a whole report under the key counts; else no test has passed."""
    if reason:
        return {"reason": reason}
    filled = {"exploits": ["filled_disk"]} if code == init.FULL else {}
    digest, body = reported[:DIGEST], reported[DIGEST:]
    if len(digest) == DIGEST and hmac.compare_digest(
        digest, hashlib.blake2b(body, key=key, digest_size=DIGEST).digest()
    ):
        tests = tests_in(body)
        if tests is not None:
            return {"reason": "complete", "tests": tests} | filled
    if reported:
        return {"reason": "no_marker", "exploits": ["forged_report"]}
    if code == init.BROKEN and b"\0setup: " in printed:
        return {"lost": printed.decode("utf-8", "replace")}
    if code == init.QUIET:  # a process that ran no test to its end and says that all is well
        return {"reason": "no_marker", "exploits": ["early_exit"]}
    reasons = {init.TOO_MUCH_MEMORY: "memory", init.UNWRITTEN: "patch_refused", init.FULL: "disk"}
    return {"reason": reasons.get(code, "no_marker")} | filled


def tests_in(body: bytes) -> list | None:
    """(test id, status) pairs, and nothing else that the judged process may have written; None where it wrote no such
    report."""
    try:
        pairs = json.loads(body)["tests"]
        texts = all(type(id) is str and type(status) is str for id, status in pairs)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return pairs if texts else None


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if p and p != here]
    sys.path[:0] = [here, os.path.join(here, "site")]
    import inside  # type: ignore[import-not-found]  # noqa: F401  # pytest and what it needs, imported once
    import judged_init as init  # type: ignore[import-not-found]

    init.load_seccomp(os.path.join(here, "seccomp.bpf"))

    os.environ.clear()
    serve(socket.socket(fileno=int(sys.argv[1])))
