"""Removes an owner's containers when the owner is gone, even by SIGKILL.

A running box then ends by itself (`init.py`), and the engine removes it; this is for containers that were still being
made. `python -m crrl.sandbox.containers.keeper FOLDER ENGINE ADDRESS OWNER` waits for the end of its stdin, which the
owner holds. It also removes FOLDER, which has the owner's sockets.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time

TIMES, EVERY_S = 5, 1.0  # the engine may still be executing the owner's last request


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    folder, name, address, owner = sys.argv[1:5]
    while sys.stdin.buffer.read(1):
        pass
    from crrl.sandbox.containers.engine import OWNER, ContainerEngine

    engine = ContainerEngine(name, address=address)
    engine.labels[OWNER] = owner
    for _ in range(TIMES):
        engine.sweep(mine=True)
        time.sleep(EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
