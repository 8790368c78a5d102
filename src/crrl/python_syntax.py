"""Python sources as trees, read by several threads.

CPython 3.11 counts the depth of the trees that it builds in one place for all threads. Where Python code runs amid two
of them (a callback of the garbage collector is enough), one raises `SystemError: AST constructor recursion depth
mismatch`; seen with 3.11.2 and 3.11.7. So one parses at a time.
"""

from __future__ import annotations

import ast
import threading
from typing import Any

_ONE_AT_A_TIME = threading.Lock()


def parse(source: str | bytes) -> ast.Module:
    """Like `ast.parse`. Raises SyntaxError, ValueError (NUL bytes), RecursionError, MemoryError."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def literal(text: str) -> Any:
    """Like `ast.literal_eval`. Raises what `parse` does, and TypeError."""
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)
