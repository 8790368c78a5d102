"""`crrl tasks make` on a cargo package; which side of an assertion is the right one, in Rust and in Java."""

from __future__ import annotations

from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.making.trees.asserted import sides
from crrl.making.trees.rust import NEW, OLD
from crrl.tasks.files import load_tasks

CODE = """/// Moves value into [low, high].
pub fn clamp(value: i64, low: i64, high: i64) -> i64 {
    if value < low {
        return low;
    }
    if value > high {
        return high;
    }
    value
}

#[cfg(test)]
mod tests {
    #[test]
    fn inline() {
        assert_eq!(super::clamp(1, 2, 3), 2);
    }
}
"""
TESTS = """use sums::clamp;

#[test]
fn inside() {
    assert_eq!(clamp(5, 1, 9), 5);
}

#[test]
fn below() {
    let got = clamp(-3, 1, 9);
    assert_eq!(1, got);
}

#[test]
fn above() {
    assert_eq!(clamp(12, 1, 9), 9);
}
"""


def package(root: Path) -> Path:
    for folder in ("src", "tests"):
        (root / folder).mkdir(parents=True)
    (root / "Cargo.toml").write_text('[package]\nname = "sums"\nversion = "0.1.0"\nedition = "2021"\n')
    (root / "src/lib.rs").write_text(CODE)
    (root / "tests/sums.rs").write_text(TESTS)
    return root


@pytest.mark.corpora
@pytest.mark.timeout(1200)
def test_a_package_becomes_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/usr/bin/cargo").exists():
        pytest.skip("Rust is not here: apt-get install cargo")
    root, out = package(tmp_path / "project"), tmp_path / "project.jsonl"
    assert main(["tasks", "make", str(root), f"out={out}", "network=no", "times=1", "limit=2"]) == 0
    assert "without coverage" in capsys.readouterr().err
    tasks, _ = load_tasks(out)
    for task in tasks:
        assert task.language == "rust" and task.provenance["fails_by"] == "value" and "clamp" in task.issue
        assert {t.partition("::")[0] for t in [*task.test.fail_to_pass, *task.test.pass_to_pass]} == {"tests/sums.rs"}
    (root / "tests/sums.rs").unlink()
    assert main(["tasks", "make", str(root), f"out={tmp_path}/none.jsonl", "network=no"]) == 1
    assert "cannot judge it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path, assertion, expected",
    [
        ("a.rs", "assert_eq!(f(1, &x), 3);", ("f(1, &x)", False)),
        ("a.rs", 'assert_eq!(Some(3), f(1), "{}", 2);', ("f(1)", True)),
        ("a.rs", "assert_eq!(vec![1, 2], got);", ("got", True)),
        ("a.rs", "assert_eq!(got, want);", ("got", False)),
        ("a.rs", "assert_eq!(f(x), g(y));", None),
        ("a.rs", "assert_eq!(f(expected), expected);", ("f(expected)", False)),
        ("A.java", "assertEquals(3, f(1));", ("f(1)", True)),
        ("A.java", "assertEquals(f(1), 3);", ("f(1)", False)),
        ("A.java", 'assertEquals("message", 3, f(1));', ("f(1)", True)),
        ("A.java", 'assertEquals("a", f(1), "message");', ("f(1)", True)),
        ("A.java", "assertEquals(expected, actual);", ("actual", True)),
        ("A.java", "assertEquals(f(x), g(y));", None),
        ("A.java", 'assertEquals(3, f("a  b"));', ('f("a  b")', True)),
        ("A.java", "assertTrue(f(x));", ("f(x)", True)),
        ("A.java", 'assertFalse("message", f(x));', ("f(x)", True)),
        ("A.java", "assertSame(f(x), y);", None),
    ],
)
def test_sides_of_an_assertion(path: str, assertion: str, expected: tuple[str, bool] | None) -> None:
    if path.endswith(".rs"):
        text = f"#[test]\nfn a() {{\n    {assertion}\n}}\n"
    else:
        text = f"class A {{\n  void a() {{\n    {assertion}\n  }}\n}}\n"
    assert sides(path, text.encode(), 3, frozenset({"f", "g"})) == expected


def test_panics_are_read_old_and_new() -> None:
    new = (
        'thread \'a\' panicked at tests/x.rs:5:9:\nassertion `left == right` failed: why\n  left: "a: b"\n right: "c"\n'
    )
    old = (
        "thread 'a' panicked at 'assertion failed: `(left == right)`\n  left: `1`,\n right: `2`: why', tests/x.rs:5:9\n"
    )
    assert NEW.findall(new) == [("tests/x.rs", "5", '"a: b"', '"c"')]
    assert OLD.findall(old) == [("1", "2", "tests/x.rs", "5")]
