"""What of a long file is shown: whole definitions around the changed lines, whatever the language, or a part of one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crrl.agents.answer import Questions
from crrl.agents.excerpts import changed_lines, excerpt, pieces
from crrl.tasks.diffs import between
from crrl.warmstart.chats import Change, chat

FUNCTIONS = "import os\n\n" + "\n\n".join(
    f"# number {n}\n@cached\ndef f{n}(\n    a,\n):\n    if a:\n        return {n}\n    else:\n        return a\n"
    for n in range(20)
)
CLASS = "class C:\n    x = 1\n\n" + "\n".join(
    f"    def m{n}(self):\n        y = {n}\n\n        return y\n" for n in range(20)
)
BRACES = "package a;\n\n" + "\n".join(f"int f{n}(int a)\n{{\n\treturn {n};\n}}\n" for n in range(20))
LONG = "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(100)) + "\n\ndef g():\n    return 1\n"


def line_of(text: str, wanted: str) -> int:
    return text.split("\n").index(wanted)


def test_the_definition_around_the_line_with_what_belongs_to_it() -> None:
    shown = excerpt(FUNCTIONS, [line_of(FUNCTIONS, "        return 7")], 15)
    body = "# number 7\n@cached\ndef f7(\n    a,\n):\n    if a:\n        return 7\n    else:\n        return a\n"
    before, after = FUNCTIONS.split(body)
    assert shown == f"[{before.count(chr(10))} lines left out]\n{body}[{after.count(chr(10))} lines left out]\n"


@pytest.mark.parametrize(
    ("text", "line", "starts", "ends"),
    [
        (CLASS, "        y = 5", "    def m5(self):", "        return y"),
        (BRACES, "\treturn 9;", "int f9(int a)", "}"),
        (FUNCTIONS, "# number 3", "# number 3", "        return a"),
        (FUNCTIONS, "def f4(", "# number 4", "        return a"),
    ],
)
def test_the_largest_definition_that_fits(text: str, line: str, starts: str, ends: str) -> None:
    ((first, last),) = pieces(text.split("\n"), [line_of(text, line)], 12)
    lines = text.split("\n")
    assert (lines[first], lines[last - 1]) == (starts, ends)


def test_of_a_longer_definition_a_part_that_does_not_tell_the_place() -> None:
    found = set()
    for n in range(20, 80):
        ((first, last),) = pieces(LONG.splitlines(), [n], 20)
        assert last - first == 20 and first <= n < last
        found.add(n - first)
    assert len(found) > 5


def test_several_places_share_the_lines() -> None:
    shown = pieces(CLASS.splitlines(), [4, 40, 70], 12)
    assert len(shown) == 3 and sum(end - start for start, end in shown) <= 24
    whole = excerpt(FUNCTIONS, [line_of(FUNCTIONS, "        return 7"), line_of(FUNCTIONS, "        return 9")], 40)
    assert "return 7" in whole and "return 9" in whole and "return 8" not in whole


@pytest.mark.parametrize("text", ["", "\n", "a = 1\n", "a = 1", FUNCTIONS])
def test_a_file_that_fits_and_one_with_nothing_to_show_is_whole(text: str) -> None:
    assert excerpt(text, [0], 1000) == text and excerpt(text, [], 3) == text


@given(
    st.lists(st.sampled_from(["def f():", "    x", "\ty", "}", "", "  )", "# c", "@d"]), max_size=60),
    st.lists(st.integers(-3, 80), max_size=5),
    st.integers(1, 30),
)
def test_every_changed_line_is_shown_and_pieces_do_not_overlap(lines: list[str], changed: list[int], most: int) -> None:
    found = pieces(lines, changed, most)
    for (_, end), (start, _) in pairwise(found):
        assert end <= start
    for at in changed:
        if lines and len(lines) > most:
            assert any(start <= min(max(0, at), len(lines) - 1) < end for start, end in found)
    text = "".join(f"{line}\n" for line in lines)
    assert excerpt(text, changed, most).count("\n") <= len(lines) + len(found) + 1


def test_what_is_no_end_of_a_line_to_a_patch_is_none_here() -> None:
    """Form feeds and kin stand in old sources."""
    text = "\x0c\u2028\x1c\x85\r\n" * 9 + FUNCTIONS
    after = text.replace("return 7\n", "return 70\n")
    (at,) = changed_lines(between("m.py", text, after))["m.py"]
    shown = excerpt(text, [at], 15)
    above = text.split("# number 7")[0].count("\n")
    assert "return 7\n" in shown and shown.startswith(f"[{above} lines left out]\n# number 7\n")
    assert excerpt(text, [at], 1000) == text


def test_a_demonstration_holds_nothing_that_was_not_shown() -> None:
    after = FUNCTIONS.replace("return 7\n", "return 70\n")
    solution = between("m.py", FUNCTIONS, after)
    assert changed_lines(solution) == {"m.py": [line_of(FUNCTIONS, "        return 7")]}
    questions = Questions("", "{{ files[0].text }}", "", context=30, lines=15)
    asked, answer = chat("t", "?", [Change("m.py", FUNCTIONS, after)], questions, solution)["messages"]
    search = answer["content"].split("SEARCH\n")[1].split("=======")[0]
    assert search in asked["content"] and search.startswith("# number 7\n") and search.endswith("return a\n")
