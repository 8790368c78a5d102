"""What the Python clients share: the order they get (argv), the tool, and the one line of JSON that they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import httpx

ORDER: dict[str, Any] = json.loads(sys.argv[1])  # `Order` in ../test_clients.py
sent = 0


def count(_: httpx.Request) -> None:
    """The HTTP requests, retries of the library included."""
    global sent
    sent += 1


def shell(cmd: str) -> tuple[str, bool]:
    """The tool, and whether it worked: it fails where the policy asks for a file that is not there."""
    return (f"error: {cmd}: no such file", False) if "missing" in cmd else (f"ran {cmd}", True)


def main(acts: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
    """Does what was ordered, and prints what came of it."""
    try:
        said = acts[ORDER["act"]]()
    except Exception as error:
        said = {"error": str(error), "kind": type(error).__name__, "status": getattr(error, "status_code", None)}
    print(json.dumps({**said, "sent": sent}))
