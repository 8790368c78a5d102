"""The memory watchdog's measure (`memory_watch.py`): what all processes of this pid namespace hold.

Runs as PID 1 of a box (`pid1.py`) or of a judged run (`rewards/judged_init.py`), standard library only, no `crrl`.
Resident size alone is not what a tree of processes holds. Counted too: processes whose leading thread has exited
(their own `statm` reads 0), page tables, System V segments, files in tmpfs, buffers of sockets, pipes. System V
semaphores and messages show nowhere: `seccomp.build` denies them where this watches. Not counted, and the reason to
prefer a cgroup: shared anonymous memory that is unmapped again between two samples, and small kernel objects (mappings,
timers).

Two measures, because one is taken every 2 to 50 ms: an upper bound of what is cheap to read (0.2 ms of CPU and 10 us
for each process), and the exact sum.
"""

import os
import resource
import sys

PAGE = resource.getpagesize()
PIPE_BYTES = 64 << 10  # what a pipe holds; `seccomp.build` keeps it from being enlarged
SOCKET_BYTES = 416 << 10  # twice the usual net.core.wmem_default: what a socket's buffer may take, with its overhead
NETLINK_SOCK_DIAG, DUMP = 4, 0x301
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
TCP, UDP = 6, 17
SOCKETS = (  # family, protocol, where they are listed
    (AF_UNIX, 0, "unix"),
    (AF_INET, TCP, "tcp"),
    (AF_INET, UDP, "udp"),
    (AF_INET6, TCP, "tcp6"),
    (AF_INET6, UDP, "udp6"),
)


_kernels_own = 0  # sockets of this network namespace before anything ran in it


def begin() -> None:
    """Before anything else runs in this network namespace."""
    global _kernels_own
    _kernels_own = used_sockets()


def bound(pids: list[str], folders: tuple[str, ...]) -> int:
    """Bytes: no less than what is held. `folders`: where this namespace's own tmpfs are mounted."""
    total = segments() + files(folders) + max(0, used_sockets() - _kernels_own) * SOCKET_BYTES
    for pid in pids:
        size, resident = memory_of(pid)
        total += resident + size // 512 + descriptors(pid) * PIPE_BYTES
    return total


def exact(pids: list[str], folders: tuple[str, ...], limit: int) -> int:
    """Bytes, of processes that are stopped. Pages that several of them share are told apart only where it decides
    whether this is more than `limit`."""
    used = segments() + files(folders) + pipes(pids) + socket_buffers() + sum(map(page_tables, pids))
    resident = sum(memory_of(pid)[1] for pid in pids)
    return used + (resident if used + resident <= limit else sum(map(proportional, pids)))


def processes() -> list[str]:
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != "1"]


def segments() -> int:
    """System V shared memory, attached or not."""
    return sum(int(line.split()[-2]) for line in text("/proc/sysvipc/shm").splitlines()[1:])


def files(folders: tuple[str, ...]) -> int:
    """In tmpfs; several folders may be of one."""
    used = {}
    for folder in folders:
        space = os.statvfs(folder)
        used[os.stat(folder).st_dev] = (space.f_blocks - space.f_bfree) * space.f_frsize
    return sum(used.values())


def memory_of(pid: str) -> tuple[int, int]:
    """(virtual, resident) size."""
    for place in places(pid):
        fields = text(f"{place}/statm").split()
        if len(fields) > 1 and fields[0] != "0":
            return int(fields[0]) * PAGE, int(fields[1]) * PAGE
    return 0, 0


def places(pid: str):  # type: ignore[no-untyped-def]
    """The process, and where that shows nothing, because its leading thread has exited, its threads."""
    yield f"/proc/{pid}"
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    yield from (f"/proc/{pid}/task/{thread}" for thread in threads if thread != pid)


def proportional(pid: str) -> int:
    """Resident size; pages that several processes share count once. Of one that hides it (not dumpable), and of one
    without a leading thread, in full."""
    for line in text(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return memory_of(pid)[1]


def page_tables(pid: str) -> int:
    for place in places(pid):
        for line in text(f"{place}/status").splitlines():
            if line.startswith("VmPTE:"):
                return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: str) -> int:
    try:
        known = os.stat(f"/proc/{pid}/fd").st_size
    except OSError:
        return 0
    if known:
        return known
    for line in text(f"/proc/{pid}/status").splitlines():  # kernels before 6.2, and processes without a leading thread
        if line.startswith("FDSize:"):
            return int(line.split()[1])
    return 0


def pipes(pids: list[str]) -> int:
    """Each pipe counts as full: how full it is cannot be read from outside. A process that hides its descriptors, or
    shares them among threads without a leader, is taken to have nothing but pipes."""
    seen: set[str] = set()
    hidden = 0
    for pid in pids:
        folder = next((f"{place}/fd" for place in places(pid) if listing(f"{place}/fd")), "")
        if not folder:
            hidden += descriptors(pid)
        for number in listing(folder) if folder else ():
            try:
                target = os.readlink(f"{folder}/{number}")
            except OSError:  # closed meanwhile
                continue
            if target.startswith("pipe:"):
                seen.add(target)
    return (len(seen) + hidden) * PIPE_BYTES


def listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def used_sockets() -> int:
    """Of this network namespace, those that are closed but still hold what they sent included. (`/proc/net/tcp` lists
    them, too, but walks the whole machine's table of connections for it: 5 ms of CPU.)"""
    words = text("/proc/net/sockstat").split()
    return int(words[2]) if len(words) > 2 else sum(listed(name) for _, _, name in SOCKETS)  # a /proc that hides it


def listed(name: str) -> int:
    return max(0, text(f"/proc/net/{name}").count("\n") - 1)


def socket_buffers() -> int:
    """What the kernel has allocated for the sockets of this network namespace, as `ss --memory` has it. A unix socket
    whose peer is gone counts as full: what the peer sent is charged to a socket that is not listed any more."""
    if used_sockets() <= _kernels_own:
        return 0
    total = 0
    for family, protocol, name in SOCKETS:
        try:
            total += sum(allocated(family, attributes) for attributes in diagnosed(family, protocol))
        except OSError:  # a kernel without sock_diag for this family: all of them count as full
            total += listed(name) * SOCKET_BYTES
    return total


def allocated(family: int, attributes: dict[int, bytes]) -> int:
    memory = attributes.get(5 if family == AF_UNIX else 7, b"")
    words = [int.from_bytes(memory[at : at + 4], sys.byteorder) for at in range(0, len(memory), 4)]
    if len(words) < 8:
        return SOCKET_BYTES
    received, _, sent, _, forward, queued, _, backlog = words[:8]
    waiting = int.from_bytes(attributes.get(4, b"")[:4], sys.byteorder)
    peer = int.from_bytes(attributes.get(2, b"")[:4], sys.byteorder)
    if family == AF_UNIX and peer == 0 and waiting:
        return SOCKET_BYTES
    return received + max(sent, queued) + forward + backlog


def diagnosed(family: int, protocol: int):  # type: ignore[no-untyped-def]
    """The attributes of each socket (sock_diag(7)): inet 7 is memory; unix 2, 4, 5 are peer, queues, memory."""
    import _socket

    if family == AF_UNIX:
        size = 16  # of an answer before its attributes
        request = bytes((family, 0, 0, 0)) + b"\xff" * 4 + bytes(4) + number(0x4 | 0x10 | 0x20, 4) + bytes(8)
    else:
        size = 72
        request = bytes((family, protocol, 64, 0)) + b"\xff" * 4 + bytes(48)
    head = number(16 + len(request), 4) + number(20, 2) + number(DUMP, 2)
    sock = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    try:
        sock.send(head + bytes(8) + request)
        while True:
            data = sock.recv(1 << 16)
            at = 0
            while at + 16 <= len(data):
                length = int.from_bytes(data[at : at + 4], sys.byteorder)
                kind = int.from_bytes(data[at + 4 : at + 6], sys.byteorder)
                if kind == 2:
                    raise OSError("no sock_diag for this family")
                if kind == 3:  # the end
                    return
                yield attributes_of(data[at + 16 + size : at + length])
                at += (length + 3) & ~3
    finally:
        sock.close()


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def attributes_of(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 2], sys.byteorder)
        if length < 4:
            break
        found[int.from_bytes(data[at + 2 : at + 4], sys.byteorder)] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def text(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
