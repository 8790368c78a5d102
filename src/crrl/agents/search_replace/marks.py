"""The markers of search/replace blocks, as models write them. Group `mark` is the marker without its word.

Each is matched in time linear in the line.
"""

from __future__ import annotations

import re

_BLANK = r"^[ \t\u200b\u2060\ufeff]*"
_PREFIX = r"(?P<path>[^\s<]*[\w`*:)](?<!\\n)[ \t]*)?"  # in one line with the opening marker
_SEARCH, _REPLACE, _ALONE = r"[ \t]*SEARCH\b", r"[ \t]*REPLACE\b", r"[ \t]*>?[ \t]*$"

OPEN = re.compile(
    rf"{_BLANK}{_PREFIX}(?P<mark><{{4,}}|(?<!\S)-{{5,}}(?={_SEARCH}{_ALONE})){_SEARCH}(?P<rest>.*)$", re.IGNORECASE
)
DIVIDE = re.compile(rf"{_BLANK}(?P<mark>={{4,}})[ \t]*$")
CLOSE = re.compile(rf"{_BLANK}(?P<mark>>{{4,}}|\+{{5,}}(?={_REPLACE}{_ALONE})){_REPLACE}.*$", re.IGNORECASE)

# Those of git's conflicts, in an answer that has no others.
CONFLICT_OPEN = re.compile(rf"{_BLANK}{_PREFIX}(?P<mark><{{7,}})(?![<=>])(?P<rest>.*)$")
CONFLICT_CLOSE = re.compile(rf"{_BLANK}(?P<mark>>{{7,}})(?![<=>]).*$")

# In a block that lacks the marker itself.
LIKE_CLOSE = re.compile(rf"{_BLANK}(?:>{{5,}}(?![<=>]).*|<{{5,}}{_REPLACE}{_ALONE})$", re.IGNORECASE)
GLUED_DIVIDE = re.compile(r"^(?P<code>.*[^\s=])={7,}[ \t]*$")
GLUED_CLOSE = re.compile(rf"^(?P<code>.*[^\s>])>{{7,}}{_REPLACE}{_ALONE}", re.IGNORECASE)

FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})(.*)$")
