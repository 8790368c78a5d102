"""Search/replace blocks: what is generated reads back and applies, and what models write is read, applied in stated
steps, or told."""

import json
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crrl.agents.search_replace import Inexpressible
from crrl.agents.search_replace.apply import STEPS, Applied, apply
from crrl.agents.search_replace.generate import generate
from crrl.agents.search_replace.parse import parse

FILE = """\
import math


def area(r):
    # the area of a circle
    return math.pi * r


def volume(r, h):
    return area(r) * h
"""
PATH = "src/shapes.py"


def done(answer: str, text: str | None = FILE, path: str = PATH, files: tuple[str, ...] = (PATH,)) -> Applied:
    parsed = parse(answer, files)
    applied = apply(parsed.blocks, {} if text is None else {path: text})
    return Applied(applied.files, applied.steps, [*parsed.faults, *applied.faults])


def block(search: str, replace: str, path: str = PATH) -> str:
    return f"{path}\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


RIGHT = FILE.replace("pi * r\n", "pi * r**2\n")
OLD, NEW = "    return math.pi * r", "    return math.pi * r**2"


# What is generated --------------------------------------------------------------------------------------------

LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6) | st.sampled_from(
    ["", "=======", "<<<<<<< SEARCH", ">>>>>>> REPLACE", "========", "...", "```", "    x = 1", "x\r", "\\ No newline"]
)
TEXT = st.builds(
    lambda lines, end, last: end.join(lines) + (end if last and lines else ""),
    st.lists(LINE, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)


@given(TEXT, TEXT, st.integers(0, 2))
def test_what_is_generated_gives_the_file_again(before: str, after: str, context: int) -> None:
    try:
        written = generate(PATH, before, after, context)
    except Inexpressible:
        # Only where line ends change, or a line ends in a carriage return of its own.
        assert "\r" in before + after or (not before and not after.strip("\n"))
        return
    applied = done(f"I changed this:\n\n{written}\nDone.", before)
    assert applied.files == ({} if before == after else {PATH: after})
    assert not applied.faults


@given(st.text(max_size=300), st.lists(st.sampled_from(["a.py", "b/c.txt"]), max_size=2))
def test_no_answer_is_too_strange_to_read(answer: str, files: list[str]) -> None:
    apply(parse(answer, files).blocks, dict.fromkeys(files, FILE))


def test_real_pairs_of_files_come_back_whole(test_data: Path) -> None:
    pairs = [
        (row["func_src_before"], row["func_src_after"])
        for file in sorted((test_data / "sven").glob("*.jsonl"))
        for row in map(json.loads, file.read_text().splitlines())
    ]
    quixbugs = test_data / "quixbugs"
    for buggy in sorted(quixbugs.glob("python_programs/*.py")) + sorted(quixbugs.glob("java_programs/*.java")):
        right = buggy.parent.with_name(f"correct_{buggy.parent.name}") / buggy.name
        if right.is_file():
            pairs.append((buggy.read_text(), right.read_text()))
    assert len(pairs) > 400
    for before, after in pairs:
        applied = done(generate(PATH, before, after), before)
        assert applied.files == ({} if before == after else {PATH: after})


def test_files_of_the_standard_library_come_back_whole_after_edits() -> None:
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-c]*.py")):
        with open(file, encoding="utf-8", newline="") as opened:
            before = opened.read()
        lines = before.split("\n")
        for k in range(3, len(lines), max(1, len(lines) // 4)):
            changed = [*lines[: k - 2], *reversed(lines[k - 2 : k]), "    new = line", *lines[k:]]
            del changed[k // 2]
            assert done(generate(PATH, before, "\n".join(changed)), before).files == {PATH: "\n".join(changed)}


def test_generated_edits_are_small_and_git_takes_the_result(tmp_path: Path) -> None:
    written = generate("shapes.py", FILE, RIGHT)
    assert written == block(OLD, NEW, "shapes.py")
    again = FILE + "\n\ndef ring(r):\n    return math.pi * r\n"
    where = generate(
        "shapes.py", again, again.replace("circle\n    return math.pi * r", "circle\n    return 3 * r * r")
    )
    assert "# the area of a circle" in where, "the line alone stands twice"
    for name, text in (("a", FILE), ("b", done(written.replace("shapes.py", PATH)).files[PATH])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shapes.py").write_text(text)
    diff = subprocess.run(["git", "diff", "--no-index", "a", "b"], cwd=tmp_path, capture_output=True).stdout
    check = ["git", "apply", "--check", "-p2", "-"]
    subprocess.run(check, cwd=tmp_path / "a", input=diff, check=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [("a\nb", "a\nb\n"), ("a\nb\n", "a\nb"), ("a\nb", "a"), ("a", "a\nb"), (None, "x"), (None, "x\n"), ("", "x\n")],
)
def test_a_final_newline_can_come_and_go(before: str | None, after: str) -> None:
    assert done(generate(PATH, before, after), before).files == {PATH: after}


def test_changes_of_line_ends_alone_are_refused() -> None:
    with pytest.raises(Inexpressible):
        generate(PATH, "a\nb\n", "a\r\nb\r\n")


# What models write --------------------------------------------------------------------------------------------

READ = {
    "plain": block(OLD, NEW),
    "in a fence": f"Here it is:\n```python\n{block(OLD, NEW)}```\nDone.",
    "path above the fence": f"{PATH}\n```python\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n```",
    "path in the fence": f"```python {PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n```",
    "path in a heading": f"### `{PATH}`\n\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "path in bold, with a colon": f"**File: {PATH}:**\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "path after the mark": f"<<<<<<< SEARCH {PATH}\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "path as git writes it": block(OLD, NEW, f"a/{PATH}"),
    "absolute path": block(OLD, NEW, f"/testbed/{PATH}"),
    "only the name": block(OLD, NEW, "shapes.py"),
    "no path, one file": f"<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "no closing mark": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n",
    "no closing mark in a fence": f"{PATH}\n```\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n```\nThat is all.",
    "no opening mark in a fence": f"{PATH}\n```\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n```",
    "no opening mark after the path": f"{PATH}\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "indented marks": "".join(f"  {line}\n" for line in block(OLD, NEW).splitlines()),
    "marks alone indented": f"{PATH}\n  <<<<<<< SEARCH\n{OLD}\n  =======\n{NEW}\n  >>>>>>> REPLACE\n",
    "short marks": f"{PATH}\n<<<<< SEARCH\n{OLD}\n=====\n{NEW}\n>>>>> REPLACE\n",
    "uneven marks": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n========\n{NEW}\n>>>>>> REPLACE\n",
    "four of each": f"{PATH}\n<<<< SEARCH\n{OLD}\n====\n{NEW}\n>>>> REPLACE\n",
    "no word to close": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>>\nDone.",
    "another word to close": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> END\nDone.",
    "closed as it was opened": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n<<<<<<< REPLACE\nDone.",
    "opened as it is closed": f"{PATH}\n<<<<<<< REPLACE\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "marks of a conflict": f"{PATH}\n<<<<<<< HEAD\n{OLD}\n=======\n{NEW}\n>>>>>>> fix/area\nDone.",
    "marks of Aider's beginnings": f"{PATH}\n<<<<<<< ORIGINAL\n{OLD}\n=======\n{NEW}\n>>>>>>> UPDATED\nDone.",
    "marks of Cline": f"{PATH}\n------- SEARCH\n{OLD}\n=======\n{NEW}\n+++++++ REPLACE\nDone.",
    "marks behind what is not seen": f"{PATH}\n\u200b<<<<<<< SEARCH\n{OLD}\n\ufeff=======\n{NEW}\n>>>>>>> REPLACE\n",
    "path and mark in one line": f"{PATH}<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "path in backticks and mark": f"`{PATH}` <<<<<<<SEARCH\n{OLD}\n=======\n{NEW}\n>>>>>>> REPLACE\n",
    "code and divider in one line": f"{PATH}\n<<<<<<< SEARCH\n{OLD}=======\n{NEW}\n>>>>>>> REPLACE\n",
    "code and closing mark in one line": f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}>>>>>>> REPLACE\n",
    "all in one line": f"{PATH}<<<<<<< SEARCH\n{OLD}=======\n{NEW}>>>>>>> REPLACE\n",
    "small letters": f"{PATH}\n<<<<<<< search\n{OLD}\n=======\n{NEW}\n>>>>>>> replace\n",
    "CRLF": block(OLD, NEW).replace("\n", "\r\n"),
    "code in fences of its own": block(f"```python\n{OLD}\n```", f"```python\n{NEW}\n```"),
    "white space at line ends": block(OLD + "  \t", NEW),
    "a blank line first": block("\n" + OLD, "\n" + NEW),
    "too little indentation": block(OLD.strip(), NEW.strip()),
    "too much indentation": block("    " + OLD, "    " + NEW),
    "elided": block("def area(r):\n    ...\n" + OLD, "def area(r):\n    ...\n" + NEW),
    "line numbers as of cat -n": block(f"     6\t{OLD}", f"     6\t{NEW}"),
    "line numbers in SEARCH alone": block(f"6|{OLD}", NEW),
    "path of another system": block(OLD, NEW, PATH.replace("/", "\\")),
    "a mark of the byte order": "\ufeff" + block(OLD, NEW),
    "a draft in the reasoning": f"<think>\n{block(OLD, '    return 3 * r')}Squared.</think>\n{block(OLD, NEW)}",
    "a draft that is cut": f"<think>{PATH}\n<<<<<<< SEARCH\n{OLD}\n</think>\n{block(OLD, NEW)}",
    "reasoning that the template began": f"{block(OLD, '    return 3 * r')}Squared.\n</think>\n\n{block(OLD, NEW)}",
    "reasoning before": f"<think>\nThe file src/other.py is fine.\n</think>\n{block(OLD, NEW)}",
}


@pytest.mark.parametrize("name", READ)
def test_what_models_write_is_read(name: str) -> None:
    applied = done(READ[name])
    assert applied.files == {PATH: RIGHT}, applied.faults
    assert not applied.faults


def test_the_step_is_told_and_the_first_that_finds_one_place_counts() -> None:
    assert done(READ["plain"]).steps == ["exact"]
    told = [done(READ[name]).steps for name in ("white space at line ends", "a blank line first", "elided")]
    assert told == [["white space at line ends"], ["blank lines around"], ["elision"]]
    assert done(READ["too little indentation"]).steps == ["indentation"]
    assert done(READ["line numbers in SEARCH alone"]).steps == ["line numbers"]
    assert list(STEPS) == [
        "exact",
        "white space at line ends",
        "blank lines around",
        "indentation",
        "tabs and spaces",
        "line numbers",
        "elision",
    ]


TABS = "func f(n int) int {\n\tif n > 0 {\n\t\treturn n\n\t}\n\treturn 0\n}\n"


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("tabs", [True, False])
def test_tabs_for_spaces_and_spaces_for_tabs(width: int, tabs: bool) -> None:
    """The new lines get what the file has, one more level included."""
    spaces, changed = " " * width, TABS.replace("return n\n", "for {\n\t\t\treturn n\n\t\t}\n")
    old, new = TABS.rstrip("\n"), changed.rstrip("\n")
    if tabs:
        applied = done(block(old.replace("\t", spaces), new.replace("\t", spaces)), TABS)
        assert applied.files == {PATH: changed} and applied.steps == ["tabs and spaces"]
    else:
        applied = done(block(old, new), TABS.replace("\t", spaces))
        assert applied.files == {PATH: changed.replace("\t", spaces)} and applied.steps == ["tabs and spaces"]


def test_numbers_that_are_not_those_of_the_lines_are_no_line_numbers() -> None:
    for search in (f"5\t{OLD}", f"6\t{OLD}\n8\t", f"6\t{OLD}\n7|"):
        assert not done(block(search, NEW)).files
    table = "1|a\n2|b\n"
    assert done(block("2|b", "2|c"), table).files == {PATH: "1|a\n2|c\n"}, "here they are the file's own"


def test_code_that_speaks_of_reasoning_is_not_taken_for_it() -> None:
    text = "open = '<think>'\nmark = '</think>'\n</think>\n"
    for old in ("mark = '</think>'", "</think>"):
        assert done(block(old, "x"), text).files == {PATH: text.replace(f"\n{old}\n", "\nx\n")}


def test_a_file_that_is_not_there_has_its_neighbour_named() -> None:
    (fault,) = done(block(OLD, NEW, "src/Shapse.py"), files=(PATH, "src/other.py")).faults
    assert fault.message.endswith(f"Did you mean {PATH}?")
    (fault,) = done(block(OLD, NEW, "SRC/SHAPES.PY"), files=(PATH, "src/other.py")).faults
    assert fault.message.endswith(f"Did you mean {PATH}?")
    (fault,) = done(block(OLD, NEW, "lib/thing.c"), files=(PATH, "src/other.py")).faults
    assert "there is no such file" in fault.message and "Did you mean" not in fault.message


def test_several_blocks_and_files_and_a_path_that_is_named_once() -> None:
    files = {PATH: FILE, "doc/readme.md": "Shapes\n=======\n\nOld.\n"}
    answer = block("import math", "import cmath\nimport math") + READ["no path, one file"]
    answer += block("Shapes\n=======\n\nOld.", "Shapes\n=======\n\nNew.", "doc/readme.md")
    answer += block("", "x = 1", "src/new.py")
    applied = apply(parse(answer, files).blocks, files)
    assert not applied.faults
    assert applied.files[PATH] == RIGHT.replace("import math", "import cmath\nimport math")
    assert applied.files["doc/readme.md"] == "Shapes\n=======\n\nNew.\n", "the divider is told from code by the file"
    assert applied.files["src/new.py"] == "x = 1\n"


def test_line_ends_and_untouched_white_space_stay() -> None:
    windows = FILE.replace("\n", "\r\n").replace("import math", "import math  ")
    assert done(block("import math\n", "import math\nimport sys\n"), windows).files[PATH] == windows.replace(
        "import math  \r\n", "import math  \r\nimport sys\r\n"
    )


def test_text_without_a_final_newline_keeps_that() -> None:
    assert done(block("b", "c"), "a\nb").files == {PATH: "a\nc"}


def test_unicode_and_markup_are_only_text() -> None:
    text = 'name = "naïve – ☃"  # \u2028 \x0c\nother = "<b>"\n'
    assert done(block('other = "<b>"', 'other = "&"'), text).files == {PATH: text.replace("<b>", "&")}


REFUSED = {
    # five kinds of malformed answers, and what is said of each
    "no divider": (f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n>>>>>>> REPLACE\n", "no line ======="),
    "no search": (f"Look:\n{NEW}\n>>>>>>> REPLACE\n", "REPLACE without SEARCH"),
    "nothing changes": (block(OLD, OLD), "are the same"),
    "not in the file": (block("    return math.pi * radius", NEW), "Did you mean these, from line 6?\n" + OLD),
    "in two places": (
        block("", "", PATH).replace("SEARCH\n", "SEARCH\n\n", 1),
        "stands 2 times in the file, at lines 2, 7",
    ),
    "empty for a file that is there": (f"{PATH}\n<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE\n", "SEARCH is empty"),
    "no such file": (block("a", "b", "src/none.py"), "there is no such file"),
    "already done": (block("    return math.tau * r", OLD), "Those of REPLACE are there already"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_applied_is_told_and_changes_nothing(name: str) -> None:
    answer, said = REFUSED[name]
    applied = done(answer)
    assert applied.files == {}
    assert said in applied.faults[0].message


def test_without_a_path_and_with_several_files_the_fault_says_so() -> None:
    for above in ("", "Both a.py and b.py are wrong:\n", "See a.py.\nOf both the first:\nIt is this:\nHere:\n"):
        parsed = parse(above + READ["no path, one file"], ["a.py", "b.py"])
        assert not parsed.blocks
        assert "names no file" in parsed.faults[0].message


@pytest.mark.parametrize(
    "above",
    [
        "In {}, change this:",
        "{}:5",
        "{} (line 5)",
        "[{0}]({0})",
        "<file>{}</file>",
        '<file path="{}">',
        "“{}”",
        "```python:{}",
        '```python title="{}"',
        "2. Now of `{}` the second function, which is wrong.",
        "The fault is in /testbed/{}.",
    ],
)
def test_the_only_file_of_which_a_line_above_speaks_is_meant(above: str) -> None:
    files = {PATH: FILE, "src/other.py": FILE}
    applied = apply(parse(f"{above.format(PATH)}\n{READ['no path, one file']}", files).blocks, files)
    assert applied.files == {PATH: RIGHT}, applied.faults


@pytest.mark.parametrize("between", ["", "\n", "```\n\n", "\n```python\n"])
def test_what_stands_between_a_block_that_is_not_closed_and_the_next_is_of_neither(between: str) -> None:
    files = {PATH: FILE, "src/other.py": FILE}
    answer = f"{PATH}\n<<<<<<< SEARCH\n{OLD}\n=======\n{NEW}\n{between}{block(OLD, NEW, 'src/other.py')}"
    applied = apply(parse(answer, files).blocks, files)
    assert applied.files == {PATH: RIGHT, "src/other.py": RIGHT}, applied.faults


def test_code_that_has_marks_is_only_code() -> None:
    """Conflicts, headings and tests of tools like this one; the answer's own marks are exact."""
    text = "def f():\n    <<<<<<< HEAD\n    a\n    =======\n    b\n    >>>>>>> fix\n"
    text += 'TEXT = "a.py\\n<<<<<<< SEARCH"\nX = "y"  # =======\nquery()  # >>>>>>> REPLACE\n----- search\n'
    for line in text.splitlines():
        if line.strip() != "=======":
            applied = done(block(line, f"{line}\nnew"), text)
            assert applied.files == {PATH: text.replace(f"{line}\n", f"{line}\nnew\n", 1)}, (line, applied.faults)


def test_a_faulty_block_costs_the_others_nothing() -> None:
    applied = done(block("gone", "x") + block(OLD, NEW))
    assert applied.files == {PATH: RIGHT}
    assert [fault.line for fault in applied.faults] == [2]


def test_paths_never_leave_the_workspace() -> None:
    for path in ("../out.py", "/etc/passwd", "src/../../out.py"):
        assert not [b for b in parse(block("a", "b", path), ["x.py", "y.py"]).blocks if b.path == path]


@pytest.mark.parametrize(
    "answer",
    [
        "<<<<<<< SEARCH\n" * 60_000,
        ("<<<<<<< SEARCH\n=======\n" + "x\n" * 3) * 40_000,
        "\n" * 1_000_000,
        "=======\n" * 120_000,
        ">>>>>>> REPLACE\n" * 60_000,
        "<<<<<<< SEARCH " + "a/" * 500_000,
        block("\t" * 1_000_000 + "x", "y"),
        block("\n".join(f"{i}\tx = 1" for i in range(1, 60_000)), "y"),
        block("9" * 1_000_000 + "\t", "y"),
        "<think>" + "</think" * 140_000,
        "a=" * 500_000 + "<" * 200_000,
        "<" * 1_000_000,
        "<<<<<<< SEARCH\n" + "x======= " * 100_000,
        "x" * 1_000_000 + " <<<<<<< SEARCH",
        "```\n" * 200_000 + "<<<<<<< SEARCH\n...\n=======\n...\n>>>>>>> REPLACE",
    ],
)
def test_an_answer_of_a_megabyte_takes_seconds_at_most(answer: str) -> None:
    started = time.process_time()
    for text in (FILE * 200, "x = 1\n" * 20_000):
        apply(parse(answer, [PATH]).blocks[:50], {PATH: text})
    assert time.process_time() - started < 10
