"""Which tokens of a tokenizer are marks: they structure a conversation, and are never text.

Special tokens are, and those that look so; files call many marks of calls and reasoning plain, and hold added tokens
that are text (runs of spaces, frequent words).
"""

from __future__ import annotations

import re

_MARK = re.compile(r"[<\[\]〈].*\S|\]~.*")  # <tool_call>, [TOOL_CALLS], ]~b]


def is_mark(token: str, special: bool) -> bool:
    """Of an added token."""
    return special or _MARK.fullmatch(token) is not None
