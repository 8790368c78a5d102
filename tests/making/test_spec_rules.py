"""What a specification has to say, which licence a file has, and bodies of other languages masked."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.errors import CrrlError, UsageError
from crrl.making import spec_licence, spec_text
from crrl.making.outcomes import Refused
from crrl.making.real_mutation import functions
from crrl.making.sdist import name_of, unpacked
from crrl.making.spec_licence import Licences
from crrl.making.spec_mask import Masked, masked
from crrl.making.trees.functions import functions as tree_functions
from crrl.making.trees.spec_mask import masked_tree


def of(head: str, doc: str, body: str = "x = 1\nreturn compute(x)") -> Masked:
    lines = [head, f'    """{doc}"""', *(f"    {line}" for line in body.splitlines())]
    one = masked(functions("m.py", "\n".join(lines).encode())[0])
    assert isinstance(one, Masked)
    return one


ENOUGH = [
    ("def first(seq):", "The first element in a sequence\n\n    >>> first('ABC')\n    'A'\n    "),
    ("def split(text, at):", "Cut the text in two where the word given by `at` stands first, without that word."),
    ("def ratio(one: str, other: str):", "How alike these are: twice the letters they share, divided by all letters."),
]
TOO_LITTLE = [
    ("def get_items(self):", "Get items."),
    ("def run(self):", "Run it. See also the manual."),
    ("def load(path, mode, strict):", "Load what was stored before by whoever wrote it down there, all of it at once."),
    ("def alias(x):", "An alias for :func:`other`."),
    ("def helper(x):", "\n    >>> helper(1)\n    2\n    "),
]


@pytest.mark.parametrize(("head", "doc"), ENOUGH)
def test_enough_is_said(head: str, doc: str) -> None:
    assert spec_text.lacks(of(head, doc)) == ""


@pytest.mark.parametrize(("head", "doc"), TOO_LITTLE)
def test_too_little_is_said(head: str, doc: str) -> None:
    assert spec_text.lacks(of(head, doc)) != ""


BODY = 'if x:\n    raise ValueError("must be empty")\nreturn "nothing here"'


LONG = "\n" * spec_text.SHOWN_LINES  # too long to be shown


@pytest.mark.parametrize(
    ("test", "compared"),
    [
        ('with raises(ValueError, match="must be empty"): f(1)', "must be empty"),
        ('with raises(ValueError, match="be empty"): f(1)', "must be empty"),
        ('assert f(0) == "nothing here"', "nothing here"),
        ('assert f(0) == "something else"', ""),
        ("assert f(0) is not None", ""),
    ],
)
def test_texts_that_only_the_body_has(test: str, compared: str) -> None:
    assert spec_text.unsaid(of("def f(x):", "Said.", BODY), {"t.py::test_f": test + LONG}) == compared
    assert spec_text.unsaid(of("def f(x):", "Said.", BODY), {"t.py::test_f": test}) == "", "the test itself is shown"
    assert (
        spec_text.unsaid(of("def f(x):", "'nothing here'; must be empty.", BODY), {"t.py::test_f": test + LONG}) == ""
    )


def test_the_shortest_tests_are_shown_as_far_as_there_is_room() -> None:
    tests = {f"t.py::test_{n}": "\n".join([f"def test_{n}():", *["    assert f(1)"] * n]) for n in (30, 1, 20, 12, 2)}
    one = of("def f(x):", "Said.", BODY)
    assert list(spec_text.shown(one, tests)) == ["t.py::test_1", "t.py::test_2", "t.py::test_12"]
    other = {"t.py::test_0": "def test_0(): assert g(1)"}
    assert list(spec_text.shown(one, other | tests)) == list(spec_text.shown(one, tests)), "that names it comes first"
    assert list(spec_text.shown(one, other)) == ["t.py::test_0"]
    only_calls = {f"t.py::a_{n}": f"def a_{n}(): reveal_type(f({n}))" for n in range(3)}
    assert list(spec_text.shown(one, only_calls | tests)) == list(spec_text.shown(one, tests)), "they say nothing"
    assert list(spec_text.shown(one, only_calls | other)) == [*sorted(only_calls)]
    assert spec_text.shown(one, {"t.js": "it()"}) == {}, "a whole file is no test"
    told = spec_text.text(of("def f(x):", "Said.", BODY), 3, tests, "t.py::test_30")
    assert (
        "Some of its tests:\n\n    # t.py\n    def test_1():\n        assert f(1)\n\n    # t.py\n    def test_2" in told
    )
    assert "def test_20" not in told and "Tested by" not in told
    told = spec_text.text(of("def f(x):", "Said.", BODY), 3, {"t.js": "it()"}, "t.js::gives [1]")
    assert "Tested by `t.js::gives" in told


RAISING = {
    "def test_f():\n    raises(ValueError, lambda: f(1))\n": "    raises(ValueError, lambda: f(1))\n",
    "def test_f():\n    with pytest.raises(ValueError):\n        f(1)\n    f(0)\n": (
        "    with pytest.raises(ValueError):\n        f(1)\n"
    ),
    "class T:\n    def test_f(self):\n        self.assertRaises(ValueError, f, 1)\n": (
        "    self.assertRaises(ValueError, f, 1)\n"
    ),
    "def test_f():\n    assert f(0)\n": "",
    "def test_f():\n    raises(KeyError, lambda: f(1))\n": "",
}


@pytest.mark.parametrize("test", RAISING)
def test_the_text_shows_errors_that_tests_expect_and_the_documentation_does_not(test: str) -> None:
    hidden = {"t.py::test_f": test + LONG}
    told = spec_text.text(of("def f(x):", "Said.", BODY), 1, hidden, "t.py::test_f")
    assert ("Tests expect errors" in told) is bool(RAISING[test]) and RAISING[test] in told and "f(0)" not in told
    said = of("def f(x):", "Raises ValueError for anything.", BODY)
    assert "Tests expect" not in spec_text.text(said, 1, hidden, "t.py::test_f")


FILES = {
    "MIT": {"LICENSE": "Permission is hereby granted, free of charge, to any person obtaining a copy"},
    "Apache-2.0": {"pyproject.toml": '[project]\nlicense = "Apache-2.0"\n'},
    "BSD-3-Clause": {"pyproject.toml": '[project]\nlicense = {text = "BSD"}\n'},
    "MPL-2.0": {"setup.cfg": "[metadata]\nlicense = Mozilla Public License 2.0\n"},
    "GPL-3.0": {"COPYING": "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007"},
    "LGPL-2.1": {"COPYING.LESSER": "GNU LESSER GENERAL PUBLIC LICENSE\n  Version 2.1, February 1999"},
    "ISC": {"PKG-INFO": "Name: x\nLicense-Expression: ISC\n"},
    "PSF-2.0": {
        "pyproject.toml": '[project]\nclassifiers = ["License :: OSI Approved :: Python Software Foundation License"]\n'
    },
    "MIT OR Apache-2.0": {"Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"\n'},
    "BSD-2-Clause": {"package.json": '{"license": "BSD-2-Clause"}'},
    "unknown": {"README": "Free."},
}


@pytest.mark.parametrize("name", FILES)
def test_a_project_has_a_licence(name: str, tmp_path: Path) -> None:
    for file, text in FILES[name].items():
        (tmp_path / file).write_text(text)
    assert spec_licence.of_project(tmp_path) == name
    assert spec_licence.of_file(tmp_path, "m.py", b"x = 1\n", name) == name


HEADS = {
    b"# SPDX-License-Identifier: GPL-2.0-or-later\nx = 1\n": "GPL-2.0-or-later",
    b"# SPDX-License-Identifier: MIT OR Apache-2.0\n": "MIT OR Apache-2.0",
    b"# it under the terms of the GNU General Public License as published by\n# the Free Software Foundation, either "
    b"version 3 of the License\n": "GPL-3.0",
    b"/* GNU Lesser General Public\n * License, version 2.1 */\n": "LGPL-2.1",
    b'# Licensed under the Apache License, Version 2.0 (the "License")\n': "Apache-2.0",
    b"# Copyright (c) A. Distributed under the terms of the Modified BSD License.\n": "BSD-3-Clause",
    b'"""The MIT scheme of licensing."""\n': "ISC",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_file_may_have_its_own_licence(head: bytes, tmp_path: Path) -> None:
    assert spec_licence.of_file(tmp_path, "m.py", head, "ISC") == HEADS[head]


def test_code_that_was_taken_over_has_the_licence_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "own/_vendor/six").mkdir(parents=True)
    (tmp_path / "LICENSE").write_text(FILES["MIT"]["LICENSE"])
    (tmp_path / "own/_vendor/LICENSE").write_text(FILES["GPL-3.0"]["COPYING"])
    licence = spec_licence.of_project(tmp_path)
    assert spec_licence.of_file(tmp_path, "own/_vendor/six/a.py", b"", licence) == "GPL-3.0"
    assert spec_licence.of_file(tmp_path, "own/a.py", b"", licence) == licence == "MIT"


@pytest.mark.parametrize(
    ("words", "allowed", "refused"),
    [
        ("", ["MIT", "GPL-3.0", "unknown"], []),
        ("MIT,BSD", ["MIT", "BSD-2-Clause", "MIT OR GPL-3.0"], ["Apache-2.0", "unknown", "MIT AND GPL-3.0"]),
        ("-GPL,-AGPL", ["MIT", "LGPL-2.1", "unknown"], ["GPL-2.0-or-later", "AGPL-3.0", "MIT AND GPL-3.0"]),
        ("BSD,-BSD-2-Clause", ["BSD-3-Clause"], ["BSD-2-Clause", "MIT"]),
    ],
)
def test_licences_are_kept_or_refused_by_name(words: str, allowed: list[str], refused: list[str]) -> None:
    licences = Licences.of(words)
    assert all(licences.allow(name) for name in allowed) and not any(licences.allow(name) for name in refused)


def test_a_licence_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="licences: there is no GLP") as error:
        Licences.of("-GLP")
    assert "GPL" in error.value.remedy
    assert main(["tasks", "spec", str(tmp_path), "licences=MTI"]) == 2
    assert main(["tasks", "make", str(tmp_path), "licences=MIT"]) == 2, "it is for spec"
    assert main(["tasks", "spec", str(tmp_path), "faults=2"]) == 2, "it is for make"


@pytest.mark.parametrize("old", [False, True])
def test_an_sdist_is_read_as_it_comes(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:  # a Python that knows no filters
        monkeypatch.delattr("tarfile.data_filter", raising=False)
    (tmp_path / "p-1.0").mkdir()
    (tmp_path / "p-1.0/p.py").write_text("x = 1\n")
    with tarfile.open(tmp_path / "p-1.0.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "p-1.0", "p-1.0")
    with unpacked(tmp_path / "p-1.0.tar.gz") as folder:
        assert (folder / "p.py").read_text() == "x = 1\n" and folder.name == "p-1.0"
    assert not folder.exists() and name_of(tmp_path / "p-1.0.tar.gz") == "p-1.0"
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "p-1.0.tar.gz").read_bytes()[:40])
    with pytest.raises(CrrlError, match="cannot be unpacked"), unpacked(tmp_path / "cut.tar.gz"):
        pass
    with tarfile.open(tmp_path / "out.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "p-1.0/p.py", "../outside.py")
    with pytest.raises(CrrlError, match="cannot be unpacked"), unpacked(tmp_path / "out.tar.gz"):
        pass


TREES = {
    "m.js": (
        "/**\n * Adds two.\n * @param {number} a\n */\n"
        "function add(a, b) {\r\n  // gone\n  const c = a + b;\n  return c;\n}\n"
        "const twice = (x) => x * 2;\nclass A {\n  /** Later. */\n  async later(n) { await n; return 1; }\n}\n",
        {
            "add": (
                'function add(a, b) {\r\n  throw new Error("not implemented");\n}\n',
                "Adds two.\n@param {number} a",
            ),
            "twice": ('const twice = (x) => { throw new Error("not implemented"); };\n', ""),
            "A.later": ('  async later(n) { throw new Error("not implemented"); }\n', "Later."),
        },
    ),
    "m.go": (
        "package m\n\n// Add adds\n// two.\nfunc Add(a, b int) int {\n\tc := a + b\n\treturn c // gone\n}\n",
        {"Add": ('func Add(a, b int) int {\n\tpanic("not implemented")', "Add adds\ntwo.")},
    ),
    "m.rs": (
        "/// Adds two.\n#[inline]\npub fn add(a: i32, b: i32) -> i32 {\n    let c = a + b;\n    c\n}\n",
        {"add": ("#[inline]\npub fn add(a: i32, b: i32) -> i32 {\n    todo!()\n}\n", "Adds two.")},
    ),
    "M.java": (
        "class M {\n    /** Adds two. */\n    static int add(int a, int b) {\n"
        "        int c = a + b;\n        return c;\n    }\n}\n",
        {
            "M.add": (
                'int add(int a, int b) {\n        throw new UnsupportedOperationException("not implemented");\n    }\n',
                "Adds two.",
            )
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", TREES)
def test_bodies_of_other_languages(path: str) -> None:
    text, expected = TREES[path]
    found = {function.name: masked_tree(function) for function in tree_functions(path, text.encode())}
    assert set(found) == set(expected)
    for name, (after, doc) in expected.items():
        one = found[name]
        assert isinstance(one, Masked)
        data = one.data.decode()
        assert after in data and ("gone" not in data or name in ("twice", "A.later")), data
        assert one.doc == doc and one.body
        lines, new = text.splitlines(keepends=True), data.splitlines(keepends=True)
        assert lines[: one.edit.first - 1] == new[: one.edit.first - 1]
        rest = len(lines) - one.edit.last
        assert rest == 0 or lines[-rest:] == new[-rest:]


def test_stubs_of_other_languages_are_refused() -> None:
    for path, text in {
        "m.rs": "fn f() -> i32 { todo!() }\n",
        "m.js": 'function f() { throw new UnsupportedError("x"); }\nfunction g() { /* nothing */ }\n',
        "m.go": 'package m\n\nfunc F() {\n\tpanic("no")\n}\n',
    }.items():
        assert all(isinstance(masked_tree(one), Refused) for one in tree_functions(path, text.encode())), path
