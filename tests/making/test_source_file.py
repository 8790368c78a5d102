"""Files are read and written back byte for byte, whatever they are in."""

from __future__ import annotations

import ast
import random
import subprocess
from pathlib import Path

import pytest

from crrl.making.operators import WEIGHTS
from crrl.making.real_mutation import functions
from crrl.making.source_file import SourceFile, UnreadableError, diff

CODE = '''# -*- coding: {encoding} -*-
"""\u00dcber."""


def size(items, least):
    """How many."""
\tif len(items) > least + 1:
\t\treturn len(items)
\treturn least
'''.replace('    """How', '\t"""How')
FILES = {
    "latin-1": CODE.format(encoding="latin-1").encode("latin-1"),
    "crlf": CODE.format(encoding="utf-8").replace("\n", "\r\n").encode(),
    "cr": CODE.format(encoding="utf-8").replace("\n", "\r").encode(),
    "bom": b"\xef\xbb\xbf" + CODE.format(encoding="utf-8").encode(),
    "bom and crlf": b"\xef\xbb\xbf" + CODE.format(encoding="utf-8").replace("\n", "\r\n").encode(),
    "form feed": CODE.format(encoding="utf-8").replace("\n\n\n", "\n\x0c\n").encode(),
    "mixed line ends": CODE.format(encoding="utf-8").replace("\n", "\r\n", 4).encode(),
    "no last line end": CODE.format(encoding="utf-8").rstrip("\n").encode(),
    "line separator": CODE.format(encoding="utf-8").replace("ber", "ber\u2028").encode(),
    "cp1252": CODE.format(encoding="cp1252").replace("ber", "ber \u20ac").encode("cp1252"),
}


@pytest.mark.parametrize("kind", FILES)
def test_mutants_change_their_line_and_no_other_byte(kind: str, tmp_path: Path) -> None:
    data = FILES[kind]
    assert SourceFile.read("m.py", data).of(SourceFile.read("m.py", data).lines) == data
    (function,) = functions("m.py", data)
    mutants = list(function.mutants(random.Random(0), WEIGHTS))
    assert {mutant.kind for mutant in mutants} >= {"boundary", "constant"}
    for mutant in mutants:
        changed = function.source.with_edits([mutant.edit])
        ast.parse(changed)
        before, after = function.source.lines, SourceFile.read("m.py", changed).lines
        first, gone = mutant.edit.first - 1, mutant.edit.last - mutant.edit.first + 1
        assert before[:first] == after[:first] and before[first + gone :] == after[first + len(mutant.edit.new) :]
        patch = diff("m.py", data, changed)
        assert patch is not None
        (tmp_path / "m.py").write_bytes(data)
        subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], cwd=tmp_path, input=patch.encode(), check=True)
        assert (tmp_path / "m.py").read_bytes() == changed


def test_a_change_that_is_not_utf_8_has_no_diff() -> None:
    data = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n"
    assert diff("m.py", data, data.replace(b"\xe9", b"\xe8")) is None


@pytest.mark.parametrize("data", [b"x = (", b"\xff\xfe", b"# coding: nonsense\n", b"x = 1\0", b"(" * 5000], ids=repr)
def test_what_python_does_not_read_is_named(data: bytes) -> None:
    with pytest.raises(UnreadableError, match=r"m\.py"):
        functions("m.py", data)


def test_functions_of_every_branch_of_a_module() -> None:
    code = b"if 1:\n    def f(): pass\nelse:\n    def g(): pass\n"
    code += b"try:\n    import a\nexcept ImportError:\n    def h(): pass\n"
    code += b"else:\n    class C:\n        def m(self): pass\n"
    code += b"finally:\n    def i(): pass\nmatch 1:\n    case 1:\n        async def j(): pass\n"
    code += b"for x in ():\n    def k(): pass\nelse:\n    with open(x):\n        def l(): pass\n"
    names = [function.name for function in functions("m.py", code)]
    assert names == ["f", "g", "h", "C.m", "i", "j", "k", "l"]
