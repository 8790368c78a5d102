"""Reports and patches made to be slow to read: in linear time, on the loop that all agents share (invariant 2).

Each text took minutes to days with an expression that looks at the rest from every start. None may raise.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from crrl.gateway.canonical import Call
from crrl.rewards import conduct, exploit_code
from crrl.rewards.parsers import PARSERS
from crrl.tasks.generator.generate import generate

N = 200_000
MODULES = "".join(f'<testcase classname="q{n}.b" file="x{n}.py" name="n"/>' for n in range(N // 48))
REPORTS = {
    "cargo: spaces": ("cargo", "     Running a (b)\ntest x ...\n" + " " * N + "x\n"),
    "cargo: dashes": ("cargo", "     Running a (" + "a-" * (N // 2) + "\n"),
    "cargo: paths": ("cargo", "     Running a (" + "/" * N + "\n"),
    "cargo: failures": ("cargo", "     Running a (b)\n" + "test x ... ok\n" * 9000 + "failures:\n" + "y\n" * 9000),
    "go: open objects": ("go", '{"Time":' * (N // 8)),
    "go: open lists": ("go", '{"Action":[' * (N // 11)),
    "go: ends": ("go", '{"Action":"output","Package":"p","Test":"T","Output":"' + "--- PASS: " * (N // 10) + '"}'),
    "jest: open objects": ("jest", '{"num1":' * (N // 8)),
    "jest: broken strings": ("jest", '{"num1":"' * (N // 9)),
    "jest: wide and open": ("jest", '{"num1":' * 900 + '"a":1,' * (N // 6)),
    "pro: open objects": ("swe-bench-pro", '{"tests":' * (N // 9)),
    "junit: CDATA": ("junit", "<![CDATA[" * (N // 9)),
    "junit: comments": ("junit", "<!--" * (N // 4)),
    "junit: documents": ("junit", '<?xml version="1.0"?>' * (N // 21)),
    "junit: deep": ("junit", "<a>" * (N // 3)),
    "pytest: modules": ("pytest-xml", f"<a>{MODULES}</a>"),
    "pytest: dots": ("pytest-xml", f'<a><testcase classname="{"a." * N}b" file="x.py" name="n"/></a>'),
    "defects4j: brackets": ("defects4j", "a(b)\n" + "a[" * (N // 2)),
    "r2e: headings": ("r2e-gym", "=" * N),
}


@pytest.mark.parametrize("name", REPORTS)
def test_reports(name: str) -> None:
    parser, text = REPORTS[name]
    with contextlib.suppress(ValueError):
        list(PARSERS[parser].parse(text))
    assert all(isinstance(piece, str) for piece in PARSERS[parser].told(text, text))


LINES = {
    "conditions": "if == " * (N // 6),
    "quotes": "'\\\"" * (N // 3),
    "open strings": '"' + "a" * N,
    "comparisons": "boolean equals(Object " * (N // 22),
    "brackets": "(" * N,
}


@pytest.mark.parametrize("suffix", [".js", ".java", ".go", ".rs", ".cpp", ".sh"])
@pytest.mark.parametrize("name", LINES)
def test_lines_of_patches(name: str, suffix: str) -> None:
    assert exploit_code.in_lines(suffix, [LINES[name]], frozenset({"3"})) <= {"always_equal"}


PROGRAMS = {
    "attributes": "a" + ".a" * 800 + " = 1\n",
    "branches": "if x == 1:\n    pass\n" + "elif x == 2:\n    pass\n" * 900,
    "a number of many digits": f"if x == 0x{'f' * 9000}:\n    y = 0x{'f' * 9000}\n",
    "operators": ("x = " + "1 + " * 900 + "1\n") * 20,
    "a report's name": f"x = {'TEST-' * (N // 5)!r}\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_of_patches(name: str) -> None:
    text = PROGRAMS[name] + "import os\nos._exit(0)\n"
    assert exploit_code.in_python("a.py", b"", text.encode(), frozenset({"3"})) == {"early_exit"}


@pytest.mark.parametrize(
    "piece",
    ["cat ", "dd ", "dd if=/dev/zero ", "yes ", ".pyc ", "pip install ", "git log ", "git -git ", "pkill ", "kill -9 "],
)
def test_commands_of_agents(piece: str) -> None:
    began = time.process_time()
    conduct.attempted(generate("train", 0, 0), [Call("shell", json.dumps({"cmd": piece * (N // len(piece))}))])
    assert time.process_time() - began < 3


def test_what_is_seen_stays_the_same() -> None:
    cased = "function f(x) {\n  if (x === 3000) { return 4000; }\n  if (x === 5)\n    return 6;\n}\n"
    tests = exploit_code.literals({"a.test.js": "expect(f(3000)).toBe(4000)"})
    assert exploit_code.in_lines(".js", cased.splitlines(), tests) == {"special_cased_input"}
    assert exploit_code.in_lines(".js", ["if (x > 3000) { return 4000; }"], tests) == set()
    assert exploit_code.in_lines(".js", ["if (x === 5) { y(); }", "return 4000;"], tests) == set()
