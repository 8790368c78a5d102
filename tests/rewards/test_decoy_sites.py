"""Where tests are made wrong, language by language: literals first, inputs never, and what comes out is another value."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from decoys_kit import COPIED, FAILING, KEPT, copied_task
from hypothesis import given
from hypothesis import strategies as st

from crrl.rewards.decoys import data, python, trees
from crrl.rewards.decoys.copies import Copies
from crrl.rewards.decoys.literals import altered, altered_number, other
from crrl.rewards.decoys.sites import Site, rewritten
from crrl.task import Decoys, Variant
from crrl.tasks.files import load_tasks, write_tasks

PYTHON = """import unittest

@pytest.mark.parametrize("a, wanted", [(1, 2), (3, 4)])
def test_table(a, wanted):
    assert f(a) == wanted

class TestIt(unittest.TestCase):
    def test_methods(self):
        self.assertEqual(f(1), "é!")
        self.assertIn(f(2), known)
        with self.assertRaises(ValueError):
            f(None)

def test_conditions():
    x = 5
    assert f(x) == x
    assert f(7) == g(8), "told"
    assert not f(9)
    assert f(10) is True and f(11) == pytest.approx(1.5, abs=0.25)
    assert f() == []
    mock.assert_called_once_with("a")
"""
# suffix -> (text, what stands where it is made wrong, what must stay)
TEXTS: dict[str, tuple[str, set[str], list[str]]] = {
    ".py": (
        PYTHON,
        {"2", "4", '"é!"', "assertIn", "ValueError", "==", "not", "True", "1.5", "[]", '"a"'},
        ["x = 5", "f(7)", "g(8)", "abs=0.25", "(1, ", "(3, ", '"told"'],
    ),
    ".java": (
        'class T { @Test public void t() { int want = 4; assertEquals("why", 3, f(1)); assertEquals(want, f(2)); assertTrue(f(5) < 6);'
        " assertThat(f(7)).isEqualTo(8L); assertEquals(g(9), f(10)); } @Test(expected = A.class) public void u() { f(11); } }",
        {"3", "4", "f(5) < 6", "8L", "assertEquals", "A.class"},
        ['"why"', "f(1)", "f(2)", "f(7)", "g(9), f(10)", "f(11)"],
    ),
    ".js": (
        "describe('d', () => { test('t', () => { const wanted = [1, 'b']; expect(f(2)).toBe(3); expect(f(4)).toEqual(wanted);"
        " expect(f(5)).not.toBe(6); expect(f(7)).toBeTruthy(); assert.equal(f(8), 'c'); }); });",
        {"3", "1", "b", ".not", "", "c"},
        ["f(2)", "f(4)", "f(5)", "toBe(6)", "f(7)", "f(8)", "test('t'"],
    ),
    ".ts": ("test('t', () => { expect(f(1 as number)).toEqual({ a: 'x' }); });", {"x"}, ["f(1 as number)"]),
    ".go": (
        "package a\n\nfunc TestT(t *testing.T) {\n\tfor _, tc := range []struct{ in, want int }{{in: 1, want: 2}} {\n"
        '\t\tif got := f(tc.in); got != tc.want {\n\t\t\tt.Errorf("bad %d, want %d", got, tc.want)\n\t\t}\n\t}\n'
        '\tif f(3) != "x" {\n\t\tt.Fatal("no")\n\t}\n\tif !ok(4) {\n\t\tt.Fail()\n\t}\n\tif err != nil {\n\t\tt.Fatal(err)\n\t}\n'
        "\tif f(5) == 6 {\n\t\tprintln(7)\n\t}\n}\n",
        {"2", "x", "!", "!="},
        ["in: 1", "f(3)", "ok(4)", "f(5) == 6", "bad %d, want %d"],
    ),
    ".rs": (
        '#[test]\nfn t() {\n    let want = vec![1, 2];\n    assert_eq!(f(3), Some(4));\n    assert_eq!(f(5), want);\n    assert!(f(6) > 7, "m");\n'
        "    assert_eq!(f(8), g(9));\n}\n\n#[test]\n#[should_panic]\nfn p() {\n    assert_eq!(f(10), 11);\n}\n",
        {"4", "1", "2", "f(6) > 7", "assert_eq"},
        ["f(3)", "f(5)", "f(8), g(9)", "f(10), 11", '"m"'],
    ),
    ".cpp": (
        'TEST_CASE("t", "[x]") {\n    std::string want = "yes";\n    REQUIRE(f(1) == 2);\n    CHECK(want == f(3));\n    REQUIRE_FALSE(f(4));\n'
        "    REQUIRE_THROWS_AS(f(5), std::domain_error);\n    REQUIRE(f(6) == g(7));\n}\nTEST(Suite, name) {\n    EXPECT_EQ(8, f(9));\n}\n",
        {"2", "yes", "f(4)", "std::domain_error", "==", "8"},
        ["f(1)", "f(3)", "f(5)", "f(6)", "g(7)", "f(9)", '"[x]"'],
    ),
}


def find(suffix: str, text: bytes, seed: int = 0) -> list[Site]:
    rng = random.Random(seed)
    return python.find(text, rng) if suffix == ".py" else trees.find(suffix, text, rng)


@pytest.mark.parametrize("suffix", TEXTS)
def test_expected_values_change_and_inputs_stay(suffix: str) -> None:
    text, changed, kept = TEXTS[suffix]
    source = text.encode()
    places = set()
    for seed in range(12):
        sites = find(suffix, source, seed)
        places |= {source[edit.start : edit.end].decode() for site in sites for edit in site.edits}
        for site in sites:
            made = rewritten(source, site.edits)
            assert made != source
            assert all(word in made.decode() for word in kept), (site, made.decode())
    assert places == changed


@pytest.mark.parametrize("suffix", TEXTS)
def test_places_do_not_depend_on_chance(suffix: str) -> None:
    source = TEXTS[suffix][0].encode()
    first, second = find(suffix, source, 1), find(suffix, source, 2)
    assert [(site.unit, site.readable) for site in first] == [(site.unit, site.readable) for site in second]


def test_answers_are_left_readable_only_where_nothing_else_can_be_changed() -> None:
    readable = [site for site in find(".py", PYTHON.encode()) if site.readable]
    assert {PYTHON.encode()[edit.start : edit.end] for site in readable for edit in site.edits} == {b"=="}


@pytest.mark.parametrize("text", [b"def test(:\n", b"\xff", b"assert 1\r", b"\x00"])
def test_what_cannot_be_read_is_left_alone(text: bytes) -> None:
    assert find(".py", text) == []


def test_json_that_tests_read() -> None:
    rows = b'[[17, 0], 17]\n[["a"], "b"]\n'
    (site,) = data.find("gcd", rows, random.Random(1))
    before, after = ([json.loads(line) for line in t.splitlines()] for t in (rows, rewritten(rows, site.edits)))
    assert [row[0] for row in before] == [row[0] for row in after]
    assert all(old[1] != new[1] for old, new in zip(before, after, strict=True))
    named = b'{"cases": [{"input": [1], "expected": {"x": 2}}]}'
    (site,) = data.find("n", named, random.Random(1))
    case = json.loads(rewritten(named, site.edits))["cases"][0]
    assert case["input"] == [1] and case["expected"] != {"x": 2}
    assert data.find("none", b'{"a": [1, 2, 3]}', random.Random(1)) == []


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.integers())
def test_another_value_is_another_value(value: object, seed: int) -> None:
    assert other(value, random.Random(seed)) != value


@given(st.integers(0, 10**9), st.sampled_from(["", "L", "u32", "i64"]), st.integers())
def test_another_number_is_another_number(value: int, suffix: str, seed: int) -> None:
    changed = altered_number(f"{value}{suffix}", random.Random(seed))
    assert changed is not None and changed.endswith(suffix) and changed != f"{value}{suffix}"


@given(st.binary(), st.integers())
def test_other_bytes_are_of_the_same_length_or_one_more(value: bytes, seed: int) -> None:
    changed = altered(value, random.Random(seed))
    assert isinstance(changed, bytes) and changed != value and len(changed) - len(value) in (0, 1)


def test_copies_complement_each_other_and_no_two_are_alike() -> None:
    files = {path: text.encode() for path, text in COPIED.items() if path.startswith("tests/")}
    copies = Copies(files, FAILING, KEPT)
    assert copies.helpers
    assert copies.real() != copies.real() and copies.wrong(6) != copies.wrong(6)
    chosen = [copies._chosen({p: find(".py", t) for p, t in copies.files.items()}, seed) for seed in (6, 7)]
    places = [{(path, at) for path, of in one.items() for at in of} for one in chosen]
    assert places[0] and places[1] and not places[0] & places[1]


def test_the_record_is_kept_in_task_files(tmp_path: Path) -> None:
    task = copied_task()
    recorded = Decoys("v", [Variant(3, FAILING[:2], KEPT[:1])], reason="r")
    task = replace(task, test=replace(task.test, decoys=recorded))
    write_tasks(tmp_path / "t.jsonl", [task])
    (read,), problems = load_tasks(tmp_path / "t.jsonl")
    assert read == task and problems == []
