"""A small box: tests of limits reach them fast."""

from __future__ import annotations

from crrl.sandbox.api import Limits

SMALL = Limits(
    memory_bytes=192 << 20,
    processes=48,
    disk_bytes=24 << 20,
    inodes=2000,
    file_bytes=64 << 20,
    tmp_bytes=8 << 20,
    open_files=256,
)
