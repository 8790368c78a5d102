"""Small git histories, commit by commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

AS = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
BUGGY, FIXED = "def f(x):\n    return 2\n", "def f(x):\n    return x + 1\n"
ONE = "from m import f\n\n\ndef test_one():\n    assert f(1) == 2\n"
TWO = ONE + "\n\ndef test_two():\n    assert f(2) == 3\n"
Files = dict[str, str | bytes | None]


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *AS, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path, message: str | bytes, files: Files, *config: str) -> str:
    """None: the file is deleted."""
    root.mkdir(exist_ok=True)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            (root / path).unlink()
        else:
            (root / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    if not (root / ".git").exists():
        git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    said = message if isinstance(message, bytes) else message.encode()
    subprocess.run(["git", *AS, *config, "commit", "-q", "-F", "-"], cwd=root, check=True, input=said)
    return git(root, "rev-parse", "HEAD")
