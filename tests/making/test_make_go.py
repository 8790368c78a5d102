"""`crrl tasks make` on a Go module: from tables, subtests and methods to admitted tasks; what modules hold besides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.making.trees.hiding import without_tests
from crrl.tasks.files import load_tasks

CODE = """// Package sums adds. Müller wrote it.
package sums

import (
	"errors"
	"strings"
)

// Clamp moves value into [low, high].
func Clamp(value, low, high int) int {
	if value < low {
		return low
	}
	if value > high {
		return high
	}
	return value
}

// Window gives the last n.
func Window(numbers []int, n int) ([]int, error) {
	if n < 0 {
		return nil, errors.New("negative")
	}
	if n >= len(numbers) {
		return append([]int(nil), numbers...), nil
	}
	return numbers[len(numbers)-n:], nil
}

// Counter counts words.
type Counter struct{ words map[string]int }

// New makes one.
func New() *Counter { return &Counter{words: map[string]int{}} }

// Add a text.
func (c *Counter) Add(text string) {
	for _, word := range strings.Fields(text) {
		if strings.HasPrefix(word, "#") {
			continue
		}
		c.words[word]++
	}
}

// Count of a word.
func (c *Counter) Count(word string) int { return c.words[word] }
"""
TESTS = """package sums

import (
	"reflect"
	"strings"
	"testing"
)

func TestClamp(t *testing.T) {
	for _, tt := range []struct {
		name             string
		value, low, high int
		want             int
	}{
		{"inside", 5, 1, 9, 5},
		{"below", -3, 1, 9, 1},
		{"above", 12, 1, 9, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Clamp(tt.value, tt.low, tt.high); got != tt.want {
				t.Errorf("wrong: %d", got)
			}
		})
	}
}

func TestClampEdge(t *testing.T) {
	if Clamp(9, 1, 9) != 9 || Clamp(10, 1, 9) != 9 {
		t.Fatal("edge")
	}
}

func TestWindow(t *testing.T) {
	got, err := Window([]int{1, 2, 3}, 2)
	if err != nil || !reflect.DeepEqual(got, []int{2, 3}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := Window(nil, -1); err == nil {
		t.Error("no error")
	}
}

func TestCounter(t *testing.T) {
	c := New()
	c.Add(strings.Repeat("a ", 3) + "#b c")
	if n := c.Count("a"); n != 3 {
		t.Errorf("%d", n)
	}
	if n := c.Count("#b"); n != 0 {
		t.Errorf("%d", n)
	}
}

func TestRed(t *testing.T) { t.Fatal("as ever") }
"""
OTHER = "package other\n\nfunc Twice(n int) int {\n\treturn n * 2\n}\n"
OTHER_TEST = """package other_test

import (
	"testing"

	"example.com/sums/other"
)

func TestTwice(t *testing.T) {
	if other.Twice(4) != 8 {
		t.Fail()
	}
}

func TestTwiceNothing(t *testing.T) {
	if other.Twice(0) != 0 {
		t.Fail()
	}
}
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """CRLF in places, a package that does not compile, one without tests, one tested from outside."""
    if not Path("/usr/bin/go").exists():
        pytest.skip("Go is not here: apt-get install golang-go")
    root = tmp_path / "project"
    for name in ("sums", "other", "broken", "untested", "testdata"):
        (root / name).mkdir(parents=True)
    (root / "go.mod").write_text("module example.com/sums\n\ngo 1.13\n")
    (root / "sums/sums.go").write_bytes(CODE.replace("\n", "\r\n").encode())
    (root / "sums/sums_test.go").write_text(TESTS)
    (root / "other/other.go").write_text(OTHER)
    (root / "other/other_test.go").write_text(OTHER_TEST)
    (root / "broken/broken.go").write_text("package broken\n\nfunc F() int { return nowhere() }\n")
    (root / "broken/broken_test.go").write_text('package broken\n\nimport "testing"\n\nfunc TestF(t *testing.T) {}\n')
    (root / "untested/untested.go").write_text(OTHER.replace("other", "untested"))
    (root / "testdata/x.go").write_text("no Go at all")
    return root


def make(root: Path, out: Path, *words: str) -> int:
    return main(["tasks", "make", str(root), f"out={out}", "network=no", "times=1", *words])


@pytest.mark.timeout(900)
def test_a_module_becomes_tasks(module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "project.jsonl"
    assert make(module, out, "limit=3", "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    left_out = [line for line in said.err.splitlines() if "left out: broken" in line]
    assert len(left_out) == 1 and "undefined: nowhere" in left_out[0], said.err
    assert told["tasks"] == 3 and told["cpu_seconds"] > 0
    tasks, problems = load_tasks(out)
    assert not problems and {task.language for task in tasks} == {"go"}
    for task in tasks:
        path, function = task.provenance["function"].split(":")
        assert path in ("sums/sums.go", "other/other.go"), "only what tests cover"
        assert task.test.pass_to_pass and "TestRed" not in str(task.test.pass_to_pass)
        assert 0 < float(task.provenance["failed_share"]) <= 1 and task.provenance["fails_by"] == "value"
        assert function.rpartition(".")[2].split("-")[0] in task.issue or "Count" in task.issue
        assert f"({path.replace('.go', '_test.go')})" in task.issue and "instead of" in task.issue
        package = {test.partition("::")[0] for test in [*task.test.fail_to_pass, *task.test.pass_to_pass]}
        assert package == {f"example.com/sums/{path.partition('/')[0]}"}, "the packages that cover it, and no other"
        changed = [
            line
            for line in (task.solution or "").split("\n")
            if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")
        ]
        assert all(line.endswith("\r") for line in changed) == path.startswith("sums/")
    work = out.with_suffix(".work").read_bytes()
    assert make(module, out, "limit=3") == 0  # and none is met again
    assert out.with_suffix(".work").read_bytes() == work
    assert main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.timeout(600)
def test_what_cannot_be_made_of_is_told(module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(says: str, *words: str) -> None:
        assert make(module, tmp_path / "x.jsonl", *words) == 1
        said = capsys.readouterr().err
        assert says in said, said

    refused("finds no package with tests", "tests=./untested")
    (module / "sums/sums_test.go").write_text(
        'package sums\n\nimport "testing"\n\nfunc TestA(t *testing.T) { t.Fail() }\n'
    )
    refused("The suite is red: 1 of 1 tests fail", "tests=./sums")
    (module / "go.mod").unlink()
    refused("go mod init", "language=go")
    refused("make knows no language cobol", "language=cobol")


def test_hidden_tests_take_their_imports_along() -> None:
    text = without_tests("a_test.go", TESTS.encode(), {"TestCounter", "TestClamp"}).decode()
    assert "TestCounter" not in text and '"strings"' not in text and '"reflect"' in text and "func TestWindow" in text
    assert without_tests("a_test.go", OTHER_TEST.encode(), {"TestTwice", "TestTwiceNothing"}) == OTHER_TEST.encode()
