"""What a repair brings and its tests use: told by its signature or its name, in every language, without its value."""

from __future__ import annotations

import pytest

from crrl.making.interface import interface


def diff(path: str, come: str, gone: str = "") -> str:
    lines = [*(f"-{line}" for line in gone.splitlines()), *(f"+{line}" for line in come.splitlines())]
    count = f"-1,{len(gone.splitlines())} +1,{len(come.splitlines())}"
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ {count} @@\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "path, come, used, told",
    [
        ("m.py", "def size(x, *, by=2):\n    return x", "size(1)", "def size(x, *, by=2)"),
        ("m.py", "async def size(x) -> int:\n    return x", "size(1)", "async def size(x) -> int"),
        ("m.py", "def size(\n    x: int,\n    *,\n    by: int = 2,\n) -> int:\n    return x", "size(1)", None),
        ("m.py", "def size(x): return 17 * len(x)", "size(1)", "def size(x)"),
        ("m.py", "class Size: limit = 17", "Size()", "class Size"),
        ("m.ts", "export function size(x: number): number { return 17 }", "size(1)", "export function size(x: number)"),
        ("m.py", "class Size(Base):\n    pass", "Size()", "class Size(Base)"),
        ("m.py", "LIMIT = 17", "m.LIMIT", "LIMIT"),
        ("m.py", "limit: int = 17", "m.limit", "limit"),
        ("m.py", "    RED = 17", "Color.RED", "RED"),
        ("m.go", "func Size(x int) int {\n\treturn 17\n}", "Size(1)", "func Size(x int) int"),
        ("m.go", "func (m *Map) Size() int {", "m.Size()", "func (m *Map) Size() int"),
        ("m.go", "type Size struct {", "Size{}", "Size"),
        ("m.go", "const Limit = 17", "Limit", "Limit"),
        ("m.rs", "pub fn size(x: i32) -> i32 {", "size(1)", "pub fn size(x: i32) -> i32"),
        ("m.rs", "pub enum Size {", "Size::A", "Size"),
        ("m.js", "export function size(x) {", "size(1)", "export function size(x)"),
        ("m.js", "export const size = (x, y) => 17;", "size(1)", "export const size = (x, y)"),
        ("m.js", "exports.size = 17;", "m.size", "size"),
        ("m.ts", "export enum Size { A = 17 }", "Size.A", "Size"),
        ("M.java", "    public static int size(int x) {", "M.size(1)", "public static int size(int x)"),
        ("M.java", "    public static final int LIMIT = 17;", "M.LIMIT", "LIMIT"),
        ("M.java", "public final class Size {", "new Size()", "Size"),
    ],
)
def test_what_is_new_is_told(path: str, come: str, used: str, told: str | None) -> None:
    told = told or "def size(x: int, *, by: int = 2) -> int"
    assert interface(diff(path, come), diff("t", used)) == [f"`{told}` in {path}"]
    assert interface(diff(path, come), diff("t", "nothing")) == []


def test_parameters_that_a_function_does_not_have_yet() -> None:
    solution = diff("m.py", "def size(x, by=2):\n    return x // by", "def size(x):\n    return x")
    assert interface(solution, diff("t.py", "assert size(4, by=2) == 2")) == ["`def size(x, by=2)` in m.py"]
    assert interface(solution, diff("t.py", "assert size(4) == 2")) == []


def test_what_was_there_is_not_told() -> None:
    moved = diff("m.py", "def size(x):\n    return x + 1\nLIMIT = 3", "def size(x):\n    return x\nLIMIT = 2")
    assert interface(moved, diff("t.py", "assert size(LIMIT) == 4")) == []
    assert interface("", diff("t.py", "size(1)")) == [] == interface(moved, "")
