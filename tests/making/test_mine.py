"""`crrl tasks mine` on small histories: Python by pytest, Java by javac and JUnit, Go by its own command."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from toolchain_kit import require

from crrl.cli.main import main
from crrl.sandbox import default_state_dir
from crrl.sandbox.workspace import prepare
from crrl.tasks.files import load_tasks

AS = ["-c", "user.name=a", "-c", "user.email=a@b"]


def commit(root: Path, message: str, files: dict[str, str]) -> str:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for words in (["init", "-q"], ["add", "-A"], [*AS, "commit", "-q", "-m", message]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.timeout(600)
def test_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "project", tmp_path / "mined.jsonl"
    root.mkdir()
    old_test = "from m import f\n\ndef test_one():\n    assert f(1) == 2\n"
    parent = commit(root, "start", {"m.py": "def f(x):\n    return 2\n", "tests/test_m.py": old_test})
    fixed = {
        "m.py": "def f(x):\n    return x + 1\n",
        "tests/test_m.py": old_test + "\ndef test_two():\n    assert f(2) == 3\n",
    }
    fix = commit(root, "f gives 2 whatever it is given\n\nSigned-off-by: a <a@b>", fixed)
    commit(root, "fix: code alone", {"m.py": "def f(x):\n    return 1 + x\n"})
    commit(root, "more tests, nothing flips", {"m.py": "def f(x):\n    return x + 1\n", "tests/test_n.py": old_test})
    words = ["tasks", "mine", str(root), f"out={out}", "test=pytest", "times=1", "network=no"]
    assert main(words) == 0
    (task,), problems = load_tasks(out)
    assert (task.id, task.source.base_commit, problems) == (f"project-{fix[:12]}", parent, [])
    assert (
        task.test.fail_to_pass == ["tests/test_m.py::test_two"]
        and "tests/test_m.py::test_one" in task.test.pass_to_pass
    )
    assert task.issue == "f gives 2 whatever it is given\n" and task.created_at
    assert "return x + 1" in (task.solution or "") and "test_two" not in (task.solution or "")
    shown = prepare(task.source, default_state_dir(), 65534).lower
    assert "test_two" not in (shown / "tests/test_m.py").read_text()
    log = subprocess.run(
        ["git", "-c", "safe.directory=*", "log", "--all", "--oneline"],
        cwd=shown,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(log.stdout.splitlines()) == 1  # the future is hidden
    assert "no test flips 1" in capsys.readouterr().err
    assert main(["tasks", "check", str(out), "times=1"]) == 0


JAVA = "public class Sum {{ public static int of(int a, int b) {{ return {0}; }} }}\n"
JAVA_TEST = """import org.junit.Test;
import static org.junit.Assert.assertEquals;
public class SumTest {{
    @Test public void small() {{ assertEquals(4, Sum.of(2, 2)); }}
    {0}
}}
"""


@pytest.mark.timeout(600)
def test_java_with_a_jar_that_set_up_brought(tmp_path: Path) -> None:
    """The issue is made of what the failing test printed: the message shows the repair."""
    require(["junit"])
    root, out = tmp_path / "sums", tmp_path / "mined.jsonl"
    root.mkdir()
    commit(root, "start", {"src/Sum.java": JAVA.format("a * b"), "test/SumTest.java": JAVA_TEST.format("")})
    large = "@Test public void large() { assertEquals(7, Sum.of(3, 4)); }"
    repaired = JAVA.format("a + b")
    fix = commit(root, f"fix: {repaired}", {"src/Sum.java": repaired, "test/SumTest.java": JAVA_TEST.format(large)})
    setup = "setup=mkdir -p /environment/lib && cp /usr/share/java/hamcrest.jar /environment/lib/"
    words = ["tasks", "mine", str(root), f"out={out}", "language=java", "times=1", "network=no", setup]
    assert main(words) == 0
    (task,), _ = load_tasks(out)
    assert task.id == f"sums-{fix[:12]}" and task.language == "java"
    assert task.test.fail_to_pass == ["SumTest::large"] and task.test.pass_to_pass == ["SumTest::small"]
    assert "SumTest::large" in task.issue and "a + b" not in task.issue and "12" in task.issue


GO = "package sums\n\nfunc Of(a, b int) int {{\n\treturn {0}\n}}\n"
GO_TEST = """package sums

import "testing"

func TestSmall(t *testing.T) {{
	if Of(2, 2) != 4 {{
		t.Fatal("small")
	}}
}}
{0}"""


@pytest.mark.timeout(600)
def test_go(tmp_path: Path) -> None:
    require(["go"])
    root, out = tmp_path / "sums", tmp_path / "mined.jsonl"
    root.mkdir()
    module = {"go.mod": "module sums\n\ngo 1.19\n"}
    commit(root, "start", {**module, "sums.go": GO.format("a * b"), "sums_test.go": GO_TEST.format("")})
    large = 'func TestLarge(t *testing.T) {\n\tif Of(3, 4) != 7 {\n\t\tt.Fatal("large")\n\t}\n}\n'
    fix = commit(
        root, "fix: Of gives a product", {"sums.go": GO.format("a + b"), "sums_test.go": GO_TEST.format(large)}
    )
    words = ["tasks", "mine", str(root), f"out={out}", "test=go test -json ./...", "times=1"]
    assert main(words) == 0
    (task,), _ = load_tasks(out)
    assert task.id == f"sums-{fix[:12]}" and task.language == "go" and task.issue == "fix: Of gives a product\n"
    assert [name.rpartition("Test")[2] for name in task.test.fail_to_pass] == ["Large"]
    assert [name.rpartition("Test")[2] for name in task.test.pass_to_pass] == ["Small"]


RUST = "pub fn of(a: i32, b: i32) -> i32 {{\n    {0}\n}}\n"
RUST_TEST = "#[test]\nfn small() {{\n    assert_eq!(sums::of(2, 2), 4);\n}}\n{0}"
RUST_LARGE = "\n#[test]\nfn large() {\n    assert_eq!(sums::of(3, 4), 7);\n}\n"
RUST_OTHER = "#[test]\nfn nought() {\n    assert_eq!(sums::of(0, 0), 0);\n}\n"


@pytest.mark.timeout(600)
def test_rust(tmp_path: Path) -> None:
    """cargo stops at the first test binary that fails, unless it is told to go on: the other's test must be there."""
    require(["rust"])
    root, out = tmp_path / "sums", tmp_path / "mined.jsonl"
    root.mkdir()
    crate = {"Cargo.toml": '[package]\nname = "sums"\nversion = "0.1.0"\nedition = "2021"\n'}
    crate |= {"src/lib.rs": RUST.format("a * b"), "tests/a_sums.rs": RUST_TEST.format(""), "tests/b_other.rs": ""}
    commit(root, "start", crate)
    repaired = {"src/lib.rs": RUST.format("a + b"), "tests/a_sums.rs": RUST_TEST.format(RUST_LARGE)}
    fix = commit(root, "of(3, 4) gives 12", repaired | {"tests/b_other.rs": RUST_OTHER})
    words = ["tasks", "mine", str(root), f"out={out}", "test=cargo test", "times=1"]
    assert main(words) == 0
    (task,), _ = load_tasks(out)
    assert task.id == f"sums-{fix[:12]}" and task.language == "rust" and task.issue == "of(3, 4) gives 12\n"
    assert task.test.fail_to_pass == ["tests/a_sums.rs::large"]
    assert sorted(task.test.pass_to_pass) == ["tests/a_sums.rs::small", "tests/b_other.rs::nought"]
    assert main(["tasks", "check", str(out), "times=1"]) == 0


JEST = "exports.of = (a, b) => {0};\n"
JEST_TEST = """const {{ of }} = require('./sums');

test('small', () => {{
  console.log('{{"success": true, "testResults": []}}');
  expect(of(2, 2)).toBe(4);
}});
{0}"""


@pytest.mark.timeout(600)
def test_jest(tmp_path: Path) -> None:
    """Its report is a file: what tests print looks like one, and is none."""
    require(["jest"])
    root, out = tmp_path / "sums", tmp_path / "mined.jsonl"
    root.mkdir()
    package = {"package.json": '{"name": "sums", "version": "1.0.0", "scripts": {"test": "jest"}}\n'}
    commit(root, "start", {**package, "sums.js": JEST.format("a * b"), "sums.test.js": JEST_TEST.format("")})
    large = "test('large', () => {\n  expect(of(3, 4)).toBe(7);\n});\n"
    fixed = {"sums.js": JEST.format("a + b"), "sums.test.js": JEST_TEST.format(large)}
    fix = commit(root, "of(3, 4) gives 12", fixed)
    words = ["tasks", "mine", str(root), f"out={out}", "test=npm test", "times=1"]
    assert main(words) == 0
    (task,), _ = load_tasks(out)
    assert task.id == f"sums-{fix[:12]}" and task.language == "javascript"
    assert task.test.fail_to_pass == ["sums.test.js::large"] and task.test.pass_to_pass == ["sums.test.js::small"]
    assert main(["tasks", "check", str(out), "times=1"]) == 0


def test_the_language_is_what_the_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "sums", f"out={tmp_path}/m.jsonl"
    root.mkdir()
    commit(root, "start", {"go.mod": "module sums\n\ngo 1.19\n", "sums.go": GO.format("a + b")})
    assert main(["tasks", "mine", str(root), out]) == 1
    assert "test='go test -json ./...'" in capsys.readouterr().err
    assert main(["tasks", "mine", str(root), out, "language=python"]) == 1
    assert "*.py (language=python)" in capsys.readouterr().err


def test_a_history_without_tests_says_what_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    root.mkdir()
    commit(root, "start", {"m.py": "x = 1\n"})
    commit(root, "fix", {"m.py": "x = 2\n"})
    assert main(["tasks", "mine", str(root), f"out={tmp_path}/m.jsonl"]) == 1
    assert "changes code and tests" in capsys.readouterr().err
    assert main(["tasks", "mine", str(root), f"out={tmp_path}/m.jsonl", "language=cobol"]) == 1
