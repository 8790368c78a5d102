"""The exec server: PID 1 of a box, under the system interpreter, with built-in modules only (~8 ms of CPU per start).

Nothing in its pid namespace can kill, stop or trace it (init ignores signals without a handler; it is not dumpable). It
reaps orphans, and after each command its kill(-1, SIGKILL) ends every other process of the box, so that nothing of the
agent runs between commands (invariant 4).

Containers use it too (`containers/init.py` sets ROOT, ENVIRONMENT, USER and LAYER).

Protocol with `served_box.py`, over a SOCK_SEQPACKET descriptor; NUL separates the fields of a message:
    exec timeout cwd n argv... k=v...   -> reason code wall cpu
    abort                               -> (ends the command, reason `output`)
    read path limit                     -> ok | error class, message  (the bytes come through the output pipe)
    write path size, then data messages -> ok | error class, message
    layer file_bytes total_bytes        -> ok  (kills everything; the writable layer below ROOT comes through the pipe)
If the box has a gateway port, the first answer, `ready`, carries a socket that listens on the box's loopback.
Memory: commands join the cgroup whose descriptors it was given (`cgroup.py`); without one, a watchdog
(`memory_watch.py`) measures everything they hold.
Usage: pid1.pyc CONTROL_FD OUTPUT_FD memory processes file open_files port|0 [CGROUP_FD...]
"""

import _signal  # type: ignore[import-not-found]
import os
import resource
import select
import sys
import time

ROOT = "/workspace"
ENVIRONMENT: dict[str, str] = {}  # of every command, below what the command brings
USER: tuple[int, int, list[int]] | None = None  # uid, gid, groups of commands; None: PID 1's own
FILES: tuple[str, ...] = (ROOT, "/tmp")  # this box's own tmpfs, which count as memory
LAYER = ""  # the overlay's upper layer below ROOT
MESSAGE = 1 << 17
PR_SET_DUMPABLE = 4
SAMPLE_S = 0.05
CONTROL, OUTPUT, MEMORY, PROCESSES, FILE, OPEN_FILES, PORT, *CGROUP = (int(a) for a in sys.argv[1:])

sys.path.append("/.crrl")
import memory_watch  # type: ignore[import-not-found]  # noqa: E402


def main() -> None:
    memory_watch.libc("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    memory_watch.begin()
    for fd in (CONTROL, OUTPUT, *CGROUP):
        os.set_inheritable(fd, False)
    for limit, value in (
        (resource.RLIMIT_NPROC, PROCESSES),  # here, inside the user namespace, it counts this box only
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 1 << 20),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    wake_r, wake_w = os.pipe()
    for fd in (wake_r, wake_w):
        os.set_blocking(fd, False)
    _signal.set_wakeup_fd(wake_w)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    os.environ.clear()
    if PORT:
        hand_out(PORT)
    else:
        reply("ready")
    while True:
        message = os.read(CONTROL, MESSAGE)
        if not message:
            return
        op, *fields = [os.fsdecode(f) for f in message.split(b"\0")]
        if op == "exec":
            reply(*command(float(fields[0]), fields[1], fields[3:], int(fields[2]), wake_r))
        elif op == "read":
            reply(*attempt(read, fields[0], int(fields[1])))
        elif op == "write":
            data = receive(int(fields[1]))
            reply(*attempt(write, fields[0], data))
        elif op == "layer":
            kill_all()
            send_layer(int(fields[0]), int(fields[1]))
            reply("ok")


def hand_out(port: int) -> None:
    """`ready`, with a socket that listens on `port` of this box's loopback. The host alone holds it from then on
    (`relay.py`): nothing in the box can take connections from it, end it or get the port for itself."""
    import _socket

    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL)
    passed = listener.fileno().to_bytes(4, sys.byteorder)
    control.sendmsg([b"ready"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, passed)])
    control.detach()
    listener.close()


def reply(*fields: object) -> None:
    os.write(CONTROL, b"\0".join(os.fsencode(str(f)) for f in fields))


def command(*arguments):  # type: ignore[no-untyped-def]
    try:
        return run(*arguments)
    except Exception as error:  # no command may cause PID 1 to end: that would count as lost
        kill_all()
        os.write(OUTPUT, os.fsencode(f"{error}\n"))
        return "exit", 126, 0.0, 0.0


def run(timeout, cwd, rest, argc, wake):  # type: ignore[no-untyped-def]
    argv, env = rest[:argc], ENVIRONMENT | dict(pair.split("=", 1) for pair in rest[argc:])
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    killed = kills()
    pid = os.fork()
    if pid == 0:
        child(argv, cwd, env)
    reason, code = "exit", 0
    watch = None if CGROUP else memory_watch.Watch(MEMORY, FILES)
    sample_at = start + (watch.wait_s if watch else SAMPLE_S)
    deadline = start + timeout
    ended = False
    while not ended:
        now = time.monotonic()
        if now >= deadline:
            reason = "timeout"
            break
        ready, _, _ = select.select([wake, CONTROL], [], [], max(0.0, min(deadline, sample_at) - now))
        if CONTROL in ready:
            message = os.read(CONTROL, MESSAGE)
            if not message:
                os._exit(0)
            if message == b"abort":
                reason = "output"
                break
        if wake in ready:
            os.read(wake, 4096)
        for done, status in reap():
            if done == pid:
                ended, code = True, os.waitstatus_to_exitcode(status)
                code = code if code >= 0 else 128 - code
        now = time.monotonic()
        if not ended and now >= sample_at:
            if watch.sample() if watch else kills() > killed:
                reason = "memory"
                break
            sample_at = time.monotonic() + (watch.wait_s if watch else SAMPLE_S)
    kill_all()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if reason == "exit" and kills() > killed:
        reason = "memory"
    if reason == "exit" and code != 0 and disk_full():
        reason = "disk"
    return reason, code if reason == "exit" else "", time.monotonic() - start, cpu


def child(argv, cwd, env):  # type: ignore[no-untyped-def]
    try:
        os.setsid()
        for fd in CGROUP[1:]:
            os.write(fd, b"0")
        if not CGROUP:
            memory_watch.confine()
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(OUTPUT, 1)
        os.dup2(OUTPUT, 2)
        os.close(null)
        if USER is not None:
            os.setgroups(USER[2])
            os.setresgid(USER[1], USER[1], USER[1])
            os.setresuid(USER[0], USER[0], USER[0])
        os.chdir(os.path.join(ROOT, cwd))
        os.execvpe(argv[0], argv, env)
    except FileNotFoundError:
        os.write(2, os.fsencode(f"{argv[0]}: not found\n"))
        os._exit(127)
    except BaseException as error:
        os.write(2, os.fsencode(f"{argv[0]}: {error}\n"))
        os._exit(126)


def reap():  # type: ignore[no-untyped-def]
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def kill_all() -> None:
    while True:
        try:
            os.kill(-1, _signal.SIGKILL)
        except ProcessLookupError:
            return
        for _ in reap():
            pass
        time.sleep(0.001)


def kills() -> int:
    """How many processes of this box the kernel has killed at its memory limit."""
    for line in os.pread(CGROUP[0], 4096, 0).decode().splitlines() if CGROUP else ():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def disk_full() -> bool:
    for path in (ROOT, "/tmp"):
        space = os.statvfs(path)
        if space.f_bavail * space.f_frsize < 1 << 16 or space.f_favail == 0:
            return True
    return False


def attempt(operation, path, argument):  # type: ignore[no-untyped-def]
    try:
        full = os.path.realpath(os.path.join(ROOT, path))
        if full != ROOT and not full.startswith(ROOT + "/"):
            raise ValueError("leaves the workspace")
        operation(full, argument)
    except Exception as error:
        return (
            type(error).__name__,
            getattr(error, "errno", 0) or 0,
            getattr(error, "strerror", "") or str(error),
        )
    return ("ok",)


def read(path: str, limit: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        while limit > 0:
            data = os.read(fd, min(limit, 1 << 16))
            if not data:
                return
            limit -= len(data)
            send(data)
    finally:
        os.close(fd)


def receive(size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.read(CONTROL, MESSAGE)
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write(path: str, data: bytes) -> None:
    """Writes completely or not at all: if space runs out, the earlier version stays."""
    if os.path.isdir(path):
        raise IsADirectoryError(21, "Is a directory")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
    part = os.path.join(os.path.dirname(path), ".crrl-write~")
    if os.path.lexists(part):  # a pipe of that name would hang the open
        os.unlink(part)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
            if USER is not None:
                os.fchown(fd, USER[0], USER[1])
        finally:
            os.close(fd)
        os.replace(part, path)
    except OSError:
        if os.path.lexists(part):
            os.unlink(part)
        raise


def send_layer(file_bytes: int, total_bytes: int) -> None:
    """Every path of the writable layer: `kind mode size path NUL content`. Kinds: f(ile), l(ink), d(irectory), o(paque
    directory), w(hiteout), b(ig: more than may be sent, without its content). Nothing of the agent's runs by now."""
    stack = [b""]
    while stack:
        prefix = stack.pop()
        folder = os.path.join(os.fsencode(LAYER), prefix)
        for raw in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if raw.lower() == b".git":
                continue
            path, full = os.path.join(prefix, raw), os.path.join(folder, raw)
            info = os.lstat(full)
            kind, data = info.st_mode & 0o170000, b""
            if kind == 0o040000:
                stack.append(path)
                word = b"o" if opaque(full) else b"d"
            elif kind == 0o020000:
                word = b"w"
            elif kind == 0o120000:
                word, data = b"l", os.readlink(full)
            elif kind != 0o100000:
                continue
            elif info.st_size > min(file_bytes, total_bytes):
                word = b"b"
            else:
                total_bytes -= info.st_size
                with open(full, "rb", 0) as file:
                    word, data = b"f", file.read()
            size = info.st_size if word == b"b" else len(data)
            send(b"%s %o %d %s\0" % (word, info.st_mode & 0o777, size, path) + data)


def opaque(folder: bytes) -> bool:
    try:
        return os.getxattr(folder, "user.overlay.opaque") == b"y"
    except OSError:
        return False


def send(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(OUTPUT, view) :]


if __name__ == "__main__":
    main()
