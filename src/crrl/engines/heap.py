"""Memory that torch has freed and glibc still holds.

torch asks for aligned blocks, and glibc (2.36) seldom uses a freed one for the next: the heap grows by what each layer
made and freed. Blocks of less than 32 MiB are kept once one that large has been freed.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """To the kernel: a walk through the heap, a tenth of a second for a gigabyte. Does nothing without glibc."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
