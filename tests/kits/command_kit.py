"""`crrl` in a process of its own, which can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def crrl(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Started in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "crrl.cli.main", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )


def done(process: subprocess.Popen[str], timeout_s: float = 250) -> str:
    """What it printed, once it has ended well."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    return out
