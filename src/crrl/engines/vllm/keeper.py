"""Runs a command, and ends it with all its processes when the run ends, however that ends.

    python keeper.py FOLDER COMMAND...     with a pipe as standard input, whose other end the run holds

When the pipe closes without a word, the run is gone, by `kill -9` perhaps, and FOLDER, its private one, goes, too. It
imports nothing of ours, and starts in milliseconds.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading

GRACE_S = 15.0


def main(folder: str, command: list[str]) -> int:
    os.setsid()  # this group is all that there is to end
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the run says when
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    watching = threading.Thread(target=_wait_for_the_run, args=(folder, process), daemon=True)
    watching.start()
    code = process.wait()
    _kill_the_rest()
    if select.select([0], [], [], 0)[0]:  # the pipe is closed: that thread has the last word
        watching.join()
    return code if code >= 0 else 128 - code


def _wait_for_the_run(folder: str, process: "subprocess.Popen[bytes]") -> None:
    told = os.read(0, 1)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    _kill_the_rest()
    if not told:
        shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _kill_the_rest() -> None:
    """vLLM's own processes may outlive the one that was started."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.getpgid(int(name)) == os.getpid():
                    os.kill(int(name), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
