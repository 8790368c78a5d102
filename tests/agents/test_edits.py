"""A refusal says why, and shows the lines from which the next attempt can copy."""

from __future__ import annotations

import time

import pytest

from crrl.agents.edits import refusal

TEXT = "def f(x):\n    y = x + 1\n    z = x + 1\n    return y * z\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("y * z", "y + z", None),
        ("    z = x + 1\n    return", "return", None),
        ("y * z", "y * z", "old and new are the same"),
        ("x + 1", "x", "text occurs 2 times in m.py:\n    y = x + 1\n    z = x + 1"),
        ("x", "y", "text occurs 3 times in m.py:\ndef f(x):\n    y = x + 1\n    z = x + 1"),
        ("\n    ", "", "text occurs 3 times in m.py:\n    y = x + 1\n    z = x + 1\n    return y * z"),
        ("return y*z", "", "text not found in m.py; nearest:\n    return y * z\n    y = x + 1"),
        ("@@", "", "text not found in m.py; nearest:"),
    ],
)
def test_why_an_edit_is_refused(old: str, new: str, says: str | None) -> None:
    assert refusal(TEXT, "m.py", old, new) == says


def test_a_large_file_of_long_lines_costs_little_and_little_is_shown() -> None:
    text = "ab" * 2_000_000 + "\n" + ("x = 1  # " + "y" * 500 + "\n") * 5_000
    started = time.process_time()
    missing, often = refusal(text, "m.py", "z" * 10_000, ""), refusal(text, "m.py", "x = 1", "")
    assert time.process_time() - started < 5  # of a bound that any machine keeps; it takes 0.2 s
    assert missing is not None and often is not None and len(missing) + len(often) < 1500
