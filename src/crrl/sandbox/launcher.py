"""The launcher: one small, single-threaded process from which every box is forked.

Small, because forking the worker would copy its page tables; single-threaded, because `--die-with-parent` follows the
creating thread. Boxes die with their keeper, keepers with the launcher, and the launcher with its owner's socket: a
SIGKILL anywhere in that chain leaves no process, mount or file (tested). A message on its socket is a marshalled order
with descriptors: the keeper's channel, PID 1's control socket, the output pipe, and, if there is a cgroup, its own. The
launcher keeps the channel open until the keeper is reaped, so its end of file means exactly that.
"""

from __future__ import annotations

import gc
import marshal
import os
import select
import signal
import socket
import sys

from crrl.sandbox import keeper

MESSAGE = 1 << 16


def main() -> None:
    inbox = socket.socket(fileno=int(sys.argv[1]))
    inbox.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner handles Ctrl-C, and closes the boxes
    wake_r, wake_w = os.pipe()
    for fd in (wake_r, wake_w):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    gc.freeze()
    me = os.getpid()
    channels: dict[int, int] = {}  # of each keeper that is not yet reaped
    while True:
        ready, _, _ = select.select([inbox.fileno(), wake_r], [], [])
        if wake_r in ready:
            os.read(wake_r, 4096)
            reap(channels)
        if inbox.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(inbox, MESSAGE, 6)
        if not message:
            os._exit(0)
        order = marshal.loads(message)
        for fd in fds:  # received descriptors come inheritable: a box must not hold its keeper's channel
            os.set_inheritable(fd, False)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (wake_r, wake_w, *channels.values()):
                os.close(fd)
            inbox.close()
            keeper.run(me, socket.socket(fileno=fds[0]), fds[1], fds[2], fds[3:], order)
        channels[pid] = fds[0]
        for fd in fds[1:]:
            os.close(fd)


def reap(channels: dict[int, int]) -> None:
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            os.close(channels.pop(pid))
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
