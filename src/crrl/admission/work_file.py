"""The finished work of `check`, `make` or `mine`, one line each, next to the file that it is for: a stopped or killed
command resumes from it. A file from another repository, seed or set-up is started over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class WorkFile:
    """`done`: name -> what was kept of it."""

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self.done: dict[str, Any] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        whole = lines[:-1]  # if a write was cut short, the last line has no line end
        if whole and whole[0] == _line({"key": key}).rstrip():
            for line in whole[1:]:
                self.done |= json.loads(line)
            kept = b"".join(line + b"\n" for line in whole)
        else:
            kept = _line({"key": key})
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(kept)
        os.replace(partial, path)
        self._file = path.open("ab")

    def keep(self, name: str, value: Any) -> None:
        self.done[name] = value
        self._file.write(_line({name: value}))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
