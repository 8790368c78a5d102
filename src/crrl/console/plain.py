"""Makes untrusted text safe for a terminal: control characters are shown, not obeyed."""

from __future__ import annotations

import re

# C0 except tab and newline, DEL, C1 (some terminals take 0x9b for CSI), and the bidi overrides that reorder a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` with every control character written as its code point."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text)


def seconds(value: float) -> str:
    """`48 s`, `9 m 31 s`, `2 h 05 m`."""
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s" if value < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
