"""Removes an owner's containers when the owner is gone, even by SIGKILL.

A running box ends by itself then (`init.py`) and its engine removes it; this is for those that were just
being made. `python -m crrl.sandbox.containers.keeper FOLDER ENGINE ADDRESS OWNER` waits for the end of its stdin, which
the owner holds; FOLDER, where the owner met its containers, goes too.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time

TIMES, EVERY_S = 5, 1.0  # the engine may still be at work on what the owner asked for last


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
