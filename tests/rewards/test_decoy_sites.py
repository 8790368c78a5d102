"""Where tests are made wrong, language by language: literals first, inputs never, and what comes out is another value."""

# ruff: noqa: E501 (programs in strings)
from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from decoys_kit import COPIED, FAILING, KEPT, copied_task
from hypothesis import given
from hypothesis import strategies as st

from crrl.rewards.decoys import chance, data, facing, python, trees
from crrl.rewards.decoys.copies import Copies
from crrl.rewards.decoys.literals import altered, altered_number, among, other
from crrl.rewards.decoys.sites import Site, rewritten
from crrl.task import Decoys
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
    f(12).stdout.fnmatch_lines(["saw *"])
"""
# suffix -> (text, what stands where it is made wrong, what must stay)
TEXTS: dict[str, tuple[str, set[str], list[str]]] = {
    ".py": (
        PYTHON,
        {"2", "4", '"é!"', "assertIn", "ValueError", "==", "not", "True", "1.5", "[]", '"a"', '"saw *"'},
        ["x = 5", "f(7)", "g(8)", "abs=0.25", "(1, ", "(3, ", '"told"'],
    ),
    ".java": (
        'class T { @Test public void t() { int want = 4; assertEquals("why", 3, f(1)); assertEquals(want, f(2)); assertTrue(f(5) < 6);'
        " assertThat(f(7)).isEqualTo(8L); assertEquals(g(9), f(10)); } @Test(expected = A.class) public void u() { f(11); } }",
        {"3", "4", "f(5) < 6", "8L", "assertEquals(g(9), f(10))", "A.class"},
        ['"why"', "f(1)", "f(2)", "f(7)", "g(9), ", "f(10)", "f(11)"],
    ),
    ".js": (
        "describe('d', () => { test('t', () => { const wanted = [1, 'b']; expect(f(2)).toBe(3); expect(f(4)).toEqual(wanted);"
        " expect(f(5)).not.toBe(6); expect(f(7)).toBeTruthy(); assert.equal(f(8), 'c'); }); });",
        {"3", "1", "b", ".not", "", "c"},
        ["f(2)", "f(4)", "f(5)", "toBe(6)", "f(7)", "f(8)", "test('t'"],
    ),
    ".ts": ("test('t', () => { expect(f(1 as number)).toEqual({ a: 'x' }); });", {"x"}, ["f(1 as number)"]),
    ".mts": ("it('t', () => { expect(f<number>(1)).toBe(3 as number); });", {"3"}, ["f<number>(1)"]),
    ".cts": ("it('t', () => { assert.equal(f(1!), 'x' satisfies string); });", {"x"}, ["f(1!)"]),
    ".go": (
        "package a\n\nfunc TestT(t *testing.T) {\n\tfor _, tc := range []struct{ in, want int }{{in: 1, want: 2}} {\n"
        '\t\tif got := f(tc.in); got != tc.want {\n\t\t\tt.Errorf("bad %d, want %d", got, tc.want)\n\t\t}\n\t}\n'
        '\tif f(3) != "x" {\n\t\tt.Fatal("no")\n\t}\n\tif !ok(4) {\n\t\tt.Fail()\n\t}\n\tif err != nil {\n\t\tt.Fatal(err)\n\t}\n'
        "\tif f(5) == 6 {\n\t\tprintln(7)\n\t}\n}\n",
        {"2", "x", "!", "!="},
        ["in: 1", "f(3)", "ok(4)", "f(5) == 6", "bad %d, want %d"],
    ),
    "suite.go": (
        'package a\n\nfunc (s *Suite) TestT() {\n\ts.Equal(2, f(1))\n\ts.Require().Equal("x", f(3))\n\trequire.New(s.T()).Len(f(4), 5)\n'
        "\tassert.Equal(s.T(), 6, f(7))\n\ts.True(f(8))\n\ts.other(9)\n}\n\nfunc TestU(t *testing.T) {\n\tr := require.New(t)\n\tr.Equal(10, f(11))\n"
        "\tv.Equal(12, f(13))\n\tassert := assert.New(t)\n\tassert.Contains(f(14), 15)\n}\n",
        {"2", "x", "5", "6", "True", "10", "15"},
        ["f(1)", "f(3)", "f(4)", "f(7)", "f(8)", "other(9)", "f(11)", "v.Equal(12, f(13))", "f(14)"],
    ),
    ".rs": (
        '#[test]\nfn t() {\n    let want = vec![1, 2];\n    assert_eq!(f(3), Some(4));\n    assert_eq!(f(5), want);\n    assert!(f(6) > 7, "m");\n'
        "    assert_eq!(f(8), g(9));\n}\n\n#[test]\n#[should_panic]\nfn p() {\n    assert_eq!(f(10), 11);\n}\n",
        {"4", "1", "2", "f(6) > 7", "assert_eq!(f(8), g(9))"},
        ["f(3)", "f(5)", "f(8)", "g(9)", "f(10), 11", '"m"'],
    ),
    ".cpp": (
        'TEST_CASE("t", "[x]") {\n    std::string want = "yes";\n    REQUIRE(f(1) == 2);\n    CHECK(want == f(3));\n    REQUIRE_FALSE(f(4));\n'
        "    REQUIRE_THROWS_AS(f(5), std::domain_error);\n    REQUIRE(f(6) == g(7));\n}\nTEST(Suite, name) {\n    EXPECT_EQ(8, f(9));\n}\n",
        {"2", "yes", "f(4)", "std::domain_error", "", "REQUIRE(f(6) == g(7))", "8"},
        ["f(1)", "f(3)", "f(5)", "f(6)", "g(7)", "f(9)", '"[x]"'],
    ),
    ".cc": (
        'SCENARIO("grows") { THEN("b") { CHECK_EQ(f(1), 21); REQUIRE_NE(g(1), h()); } }\nTEST(Suite, near) { EXPECT_NEAR(f(3), 3.5, 1e-6); '
        "EXPECT_THROW(f(4), std::out_of_range); EXPECT_EQ(f(5), g(2)); EXPECT_DOUBLE_EQ(f(6), g(6)); }\nBOOST_AUTO_TEST_CASE(boosts) { "
        "BOOST_CHECK_EQUAL(f(7), 9); BOOST_TEST(f(8) < 8); }\n",
        {"21", "REQUIRE_NE", "3.5", "std::out_of_range", "", "EXPECT_EQ(f(5), g(2))", "9", "<"},
        ["f(1)", "g(1)", "f(3)", "1e-6", "f(4)", "f(5), g(2)", "f(6), g(6)", "f(7)", "f(8)"],
    ),
}


def find(suffix: str, text: bytes, seed: int = 0) -> list[Site]:
    rng = random.Random(seed)
    suffix = f".{suffix.rpartition('.')[2]}"
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


def test_each_part_is_wrong_by_itself_and_no_two_copies_are_alike() -> None:
    files = {path: text.encode() for path, text in COPIED.items() if path.startswith("tests/")}
    copies = Copies(files, [*FAILING, *KEPT])
    assert copies.parts == {*(id.split("::")[-1].partition("[")[0] for id in (*FAILING, *KEPT)), ""} - {
        "test_by_a_helper"
    }
    assert copies.real() != copies.real() and copies.wrong(6, ["test_mean"]) != copies.wrong(6, ["test_mean"])

    def places(seed: int, *parts: str) -> set[tuple[str, int]]:
        chosen = {path: copies.chosen(path, random.Random(1), seed, parts) for path in copies.files}
        return {(path, edit.start) for path, sites in chosen.items() for site in sites for edit in site.edits}

    for seed in range(6):
        alone = {part: places(seed, part) for part in copies.parts}
        assert all(alone.values()) and places(seed, *copies.parts) == set().union(*alone.values())
        assert sum(map(len, alone.values())) == len(set().union(*alone.values()))
    assert len({frozenset(places(seed, "test_mean")) for seed in range(12)}) == 2  # it has two assertions


NAMESAKES = {
    "tests/test_a.py": "class TestA:\n    def test_it(self):\n        assert f(1) == 111\n\nclass TestB:\n    def test_it(self):\n        assert f(2) == 222\n",
    "a.test.js": "describe('a', () => { it('test_it', () => { expect(f(1)).toBe(111); }); });\ndescribe('b', () => { it('test_it', () => { expect(f(2)).toBe(222); }); });\n",
    "ATest.java": "class ATest { @Nested class A { @Test void test_it() { assertEquals(111, f(1)); } } @Nested class B { @Test void test_it() { assertEquals(222, f(2)); } } }",
    "a.rs": "mod a { #[test] fn test_it() { assert_eq!(f(1), 111); } }\nmod b { #[test] fn test_it() { assert_eq!(f(2), 222); } }\n",
    "a_test.go": "package a\nfunc (s *A) Test_it() { s.Equal(111, f(1)) }\nfunc (s *B) Test_it() { s.Equal(222, f(2)) }\n",
    "a.cpp": "TEST(A, test_it) { EXPECT_EQ(f(1), 111); }\nTEST(B, test_it) { EXPECT_EQ(f(2), 222); }\n",
}


@pytest.mark.parametrize("path", NAMESAKES)
def test_namesakes_in_one_file_are_all_made_wrong(path: str) -> None:
    """Of two classes, suites or modules with a test of one name, each has its own decoy."""
    text = NAMESAKES[path].encode()
    name = "Test_it" if path.endswith(".go") else "test_it"
    copies = Copies({path: text}, [f"A::{name}", f"B::{name}"])
    assert copies.parts == {name}
    for seed in range(5):
        made = copies.wrong(seed, [name])[path]
        assert not re.search(rb"\b(111|222)\b", made)
        assert b"f(1)" in made and b"f(2)" in made


def test_a_file_with_the_name_of_a_test_is_not_that_test() -> None:
    """tests/test_slug.py::test_two belongs to test_two, whatever else is called test_slug, and whatever its parameters."""
    text = b"def test_slug():\n    assert f(1) == 111\n\n\ndef test_two(x):\n    assert f(2) == 222\n"
    ids = [f"tests/test_slug.py::{name}" for name in ("test_slug", "test_two[test_slug]", "test_two[a::test_slug]")]
    copies = Copies({"tests/test_slug.py": text}, ids)
    assert [copies.part_of(id) for id in ids] == ["test_slug", "test_two", "test_two"]
    assert b"== 111\n" in copies.wrong(1, ["test_two"])["tests/test_slug.py"]
    go = b"package a\nfunc TestAll(t *testing.T) { if f(1) != 2 { t.Fatal() } }\nfunc TestParse(t *testing.T) { if f(3) != 4 { t.Fatal() } }\n"
    copies = Copies({"a_test.go": go}, ["x/a::TestAll/TestParse", "x/a::TestParse"])
    assert copies.part_of("x/a::TestAll/TestParse") == "TestAll"
    title = "a.test.js::gives [] for a::b"
    copies = Copies({"a.test.js": b"it('gives [] for a::b', () => { expect(f(1)).toBe(3); });\n"}, [title])
    assert copies.part_of(title) == "gives [] for a::b"


def test_a_file_of_data_decides_where_the_test_itself_leaves_the_answer_readable() -> None:
    test = b"@pytest.mark.parametrize('n, want', CASES)\ndef test_bits(n, want):\n    assert bits(n) == want\n"
    copies = Copies(
        {"tests/test_bits.py": test, "data/bits.json": b"[127, 7]\n[128, 1]\n"}, ["tests/test_bits.py::test_bits[1]"]
    )
    assert copies.parts == {"bits"} and copies.part_of("tests/test_bits.py::test_bits[1]") == "bits"


def test_the_record_is_kept_in_task_files(tmp_path: Path) -> None:
    task = copied_task()
    recorded = Decoys("v", 3, {"test_mean": FAILING[:2], "": KEPT[:1]}, ["x"], reason="r")
    task = replace(task, test=replace(task.test, decoys=recorded))
    write_tasks(tmp_path / "t.jsonl", [task])
    (read,), problems = load_tasks(tmp_path / "t.jsonl")
    assert read == task and problems == []


def drawn(kind: str, rng: random.Random) -> object:
    """As tests' expected values may be."""
    if kind == "numbers":
        return rng.randint(-3, 20)
    if kind == "words":
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(0, 4)))
    return [rng.randint(0, 12) for _ in range(rng.randint(0, 4))]


@pytest.mark.parametrize("kind", ["numbers", "words", "lists"])
def test_among_values_made_of_it_the_right_one_is_not_to_be_told(kind: str) -> None:
    """By a reader that takes the one that is nearest to all, the first or last in order, the shortest, or the longest."""
    readers: dict[str, Callable[[list[object]], object]] = {
        "nearest": lambda said: min(said, key=lambda one: sum(apart(one, two) for two in said)),
        "first": lambda said: min(said, key=repr),
        "last": lambda said: max(said, key=repr),
        "shortest": lambda said: min(said, key=lambda one: (len(repr(one)), repr(one))),
        "longest": lambda said: max(said, key=lambda one: (len(repr(one)), repr(one))),
    }
    for name, reader in readers.items():
        for number in (2, 4):
            rng = random.Random(5)
            values = [drawn(kind, rng) for _ in range(600)]
            told = sum(reader(among(value, number, rng)) == value for value in values) / 600
            assert told < 1.6 / number, (name, number, told)


@pytest.mark.parametrize("value", [7, 360, -41, 52_000, 2.5, 187.25])
def test_who_trusts_what_is_near_an_estimate_finds_wrong_values_there(value: float) -> None:
    """As of a fault that is off by one, or by a little: a wrong value is as near to it as the right one, now and then."""
    off = 1 if isinstance(value, int) else abs(value) * 0.1
    for estimate in (value - off, value + off):
        rng = random.Random(3)
        near = sum(abs(altered(value, rng) - estimate) <= off * 1.001 for _ in range(400)) / 400  # type: ignore[operator]
        assert near > 0.05, (estimate, near)


def test_values_with_a_tolerance_are_far_off() -> None:
    for text in (
        b"def test():\n    assert f(1) == pytest.approx(2.5, abs=0.5)\n",
        b"def test():\n    s.assertAlmostEqual(f(1), 2.5)\n",
    ):
        for seed in range(40):
            (edit,) = [edit for site in find(".py", text, seed) for edit in site.edits]
            assert abs(float(edit.text) - 2.5) > 0.5, edit


def apart(one: object, two: object) -> float:
    if isinstance(one, int | float) and isinstance(two, int | float):
        return abs(one - two)
    first, second = repr(one), repr(two)
    return sum(a != b for a, b in zip(first, second, strict=False)) + abs(len(first) - len(second))


def test_among_booleans_there_are_two() -> None:
    assert sorted(map(repr, among(True, 9, random.Random(0)))) == ["False", "True"]


WEIGHTS = [at / 200 for at in range(1, 200)]


@pytest.mark.parametrize("parts", range(2, 14))
def test_there_are_as_many_copies_as_chance_needs(parts: int) -> None:
    def won(number: int) -> float:
        return max(p * (1 - p) ** number * (number + 1) for p in WEIGHTS) / chance.draws(parts, number)

    number = chance.copies(parts)
    assert won(number) <= chance.CHANCE and (number == 2 or won(number - 1) > chance.CHANCE * 0.9)


def test_draws_are_counted() -> None:
    for parts, number in ((1, 2), (2, 3), (3, 2)):
        ways = product(range(2), repeat=parts * number)
        rows = ([way[at * number : (at + 1) * number] for at in range(parts)] for way in ways)
        whole = [row for row in rows if all(map(any, row)) and all(map(any, zip(*row, strict=True)))]
        assert chance.draws(parts, number) == len(whole)


def test_a_lone_part_is_wrong_in_some_copies_and_real_in_others() -> None:
    assert chance.copies(1) == chance.WRONG + chance.REAL
    won = max(p ** (1 + chance.REAL) * (1 - p) ** chance.WRONG * (1 + chance.REAL * (1 - p)) for p in WEIGHTS)
    assert won <= chance.CHANCE


@pytest.mark.parametrize("tests", range(1, 14))
def test_plain_tests_have_as_many_expectations_as_chance_needs(tests: int) -> None:
    number = chance.expectations(tests)
    assert (1 / number) ** (tests * chance.runs([number] * tests)) <= chance.CHANCE * 1.001
    assert chance.runs([2] * 10) == 1 and chance.runs([2]) == 10 and chance.runs([]) == 1


def test_each_part_is_wrong_in_some_copies_and_every_choice_is_as_likely() -> None:
    found = Counter(tuple(facing._patterns(["a", "b"], 2)) for _ in range(9000))
    assert len(found) == 9 and all({"a", "b"} == one | two for one, two in found)
    assert all(800 < number < 1200 for number in found.values()), found  # 1000 each; six standard deviations
    task = copied_task()
    copies = Copies({path: text.encode() for path, text in COPIED.items() if path.startswith("tests/")}, FAILING)
    parts = {part: [id for id in FAILING if copies.part_of(id) == part] for part in copies.parts - {""}}
    for _ in range(200):
        chosen = facing._drawn(task, Decoys("v", 1, {**parts, "": FAILING[-2:-1]}), copies)
        assert len(chosen) == chance.copies(len(parts)) + 1 and all(chosen)
        assert frozenset().union(*chosen) == {*parts, ""} and frozenset([""]) in chosen


def test_names_of_cpp_tests() -> None:
    assert {site.unit for site in find(".cc", TEXTS[".cc"][0].encode())} == {"grows", "near", "boosts"}


JUNIT4, JUPITER, TESTNG = "import org.junit.Test;", "import org.junit.jupiter.api.Test;", "import org.testng.Assert;"


@pytest.mark.parametrize(
    ("framework", "assertion", "changed"),
    [
        (JUNIT4, 'assertEquals("case " + i, 3, f(1));', {"3"}),  # the message is computed
        (JUNIT4, "assertEquals(name(i), 3, f(1));", {"3"}),
        (JUNIT4, "assertEquals(3.5, f(1), 1e-9);", {"3.5"}),
        (JUNIT4, "assertEquals(3.5f, f(1), EPSILON);", {"3.5f"}),
        (JUNIT4, 'assertEquals("why", 3.5, f(1), 1e-9);', {"3.5"}),
        (JUNIT4, 'assertEquals("why", 3, 0);', {"3"}),
        (JUNIT4, 'assertTrue("why", f(1) > 2);', {"f(1) > 2"}),
        (JUNIT4, "assertNull(f(1));", {"assertNull"}),
        (JUNIT4, 'Assert.assertNotNull("why", f(1));', {"assertNotNull"}),
        (JUNIT4, "assertNotEquals(3, f(1));", {"assertNotEquals"}),
        (JUNIT4, "assertSame(a(), f(1));", {"assertSame"}),
        (JUNIT4, 'assertThat("why", f(1), is(3));', {"3"}),
        (JUNIT4, 'assertThat("why", f(1), is(g(2)));', {"g(2)"}),
        (JUNIT4, "assertThat(f(1), equalTo(g(2)));", {"g(2)"}),
        (JUNIT4, "assertThat(f(1), hasSize(2));", {"2"}),
        (JUNIT4, "assertThat(f(1), not(g(2)));", set()),
        (JUPITER, "assertThat(f(1)).isEqualTo(g(2));", {"g(2)"}),
        (JUPITER, "assertThat(f(1)).isEqualTo(3);", {"3"}),
        (JUPITER, 'assertThat("why " + i, f(1), is(3));', {"3"}),
        (JUPITER, 'assertEquals(3, f(1), "why " + 4);', {"3"}),
        (JUPITER, "assertEquals(3.5, f(1), 1e-9);", {"3.5"}),
        (JUPITER, 'assertTrue(f(1) > 2, "why");', {"f(1) > 2"}),
        (JUPITER, "assertThatThrownBy(() -> f(1)).isInstanceOf(A.class);", {"A.class"}),
        (TESTNG, 'assertEquals(f(1), 3, "why");', {"3"}),
        (TESTNG, 'assertTrue(f(1) > 2, "why");', {"f(1) > 2"}),
        (TESTNG, "assertEquals(f(1), g(2));", {"assertEquals(f(1), g(2))"}),
        (
            JUNIT4,
            'Assert.assertEquals("why " + i, a(), f(1), 1e-9);',
            {'Assert.assertEquals("why " + i, a(), f(1), 1e-9)'},
        ),
        (JUNIT4, "assertNotSame(a(), f(1));", {"assertNotSame"}),
    ],
)
def test_arguments_of_java_assertions(framework: str, assertion: str, changed: set[str]) -> None:
    source = f"{framework}\nclass T {{ @Test public void t() {{ {assertion} }} }}\n".encode()
    sites = [site for seed in range(6) for site in find(".java", source, seed)]
    assert {source[edit.start : edit.end].decode() for site in sites for edit in site.edits} == changed
    homes = {JUNIT4: b"org.junit.Assert.", JUPITER: b"org.junit.jupiter.api.Assertions.", TESTNG: b"org.testng.Assert."}
    edits = [edit for site in sites for edit in site.edits]
    renamed = [
        edit.text for edit in edits if source[edit.start :].startswith(b"assert") and b"Objects" not in edit.text
    ]
    assert all(text.startswith(homes[framework]) or b"Assert.assert" in source for text in renamed), renamed


@pytest.mark.parametrize(
    ("assertion", "wrong"),
    [
        ("expect(f(1)).toBe(g(2));", "expect(f(1)).not.toBe(g(2));"),
        (
            "expect(f(1)).toEqual(g(2));",
            "expect(f(1)).toEqual({});",
        ),  # what has a say in it is asked about another value
        ("expect(f(1)).resolves.toStrictEqual(g(2));", "expect(f(1)).resolves.toStrictEqual({});"),
        ("expect(f(1)).toEqual(expect.any(A));", "expect(f(1)).toEqual({});"),
        ("expect(f).toHaveBeenCalledWith(a, g(2));", "expect(f).toHaveBeenCalledWith(a, {});"),
        ("expect(f(1)).not.toEqual(g(2));", "expect(f(1)).toEqual(g(2));"),
        ("expect(f(1)).toBeNull();", "expect(f(1)).not.toBeNull();"),
        ("expect(f(1)).to.equal(3);", "expect(f(1)).to.equal({});"),
        ("expect(f(1)).to.deep.equal(g(2));", "expect(f(1)).to.deep.not.equal(g(2));"),
        ("expect(f(1)).to.not.equal(3);", "expect(f(1)).to.equal(3);"),
        ("expect(f(1)).not.to.equal(3);", "expect(f(1)).to.equal(3);"),
        ("expect(f(1)).to.have.property('a').that.equals(3);", None),
        ("expect(() => f(1)).to.throw(A);", "expect(() => f(1)).to.not.throw(A);"),
        ("expect(f(1)).to.be.true;", "expect(f(1)).to.be.not.true;"),
        ("expect(f(1)).to.not.be.empty;", "expect(f(1)).to.be.empty;"),
        ("f(1).should.equal(3);", "f(1).should.equal({});"),
        ("f(1).should.not.be.an('array');", "f(1).should.be.an('array');"),
        ("f(1).to.equal(3);", ""),
        ("f(1).ok;", ""),
    ],
)
def test_assertions_of_scripts(assertion: str, wrong: str | None) -> None:
    """`{}`: a value of the copy's own; None: more than one assertion, each of which is found."""
    source = f"test('t', () => {{ {assertion} }});\n".encode()
    for suffix in (".js", ".ts"):
        sites = find(suffix, source)
        if wrong is None:
            assert len(sites) == 2
        elif not wrong:
            assert sites == []
        else:
            (site,) = sites
            made = rewritten(source, site.edits).decode()
            for edit in site.edits:
                if "{}" in wrong:
                    made = made.replace(edit.text.decode(), "{}", 1)
            assert made == f"test('t', () => {{ {wrong} }});\n" and site.unit == "t"
            assert site.readable == (".not." in wrong)
