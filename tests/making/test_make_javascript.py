"""`crrl tasks make` on npm packages: `node --test` with modules of both kinds, mocha, jest and vitest."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from crrl.cli.main import main
from crrl.errors import CrrlError
from crrl.making.operators import WEIGHTS
from crrl.making.trees.functions import functions
from crrl.making.trees.hiding import without_tests
from crrl.making.trees.javascript import framework
from crrl.making.trees.script_trace import read, traced
from crrl.tasks.files import load_tasks

CODE = """'use strict';

function clamp(value, low = 0, high = 10) {
  if (value < low) {
    return low;
  }
  return Math.min(value, high);
}

class Counter {
  constructor() {
    this.words = new Map();
  }

  add(text) {
    for (const word of text.split(' ')) {
      if (word.startsWith('#')) continue;
      this.words.set(word, (this.words.get(word) || 0) + 1);
    }
    return this;
  }

  count(word) {
    return this.words.get(word) || 0;
  }
}

async function later(values, least) {
  const kept = [...values];
  return kept.filter((value) => value >= least).sort((a, b) => a - b);
}

module.exports = { clamp, Counter, later };
"""
TESTS = """const { clamp, Counter, later } = require('../lib/sums');

describe('clamp', () => {
  for (const [value, want] of [[5, 5], [-3, 0], [12, 10]]) {
    it(`moves ${value}`, () => {
      assert.strictEqual(clamp(value), want);
    });
  }
  it('takes limits', () => assert.strictEqual(clamp(7, 8, 9), 8));
});

it('counts words', () => {
  const counter = new Counter();
  counter.add('a b a #c');
  assert.strictEqual(counter.count('a'), 2);
  assert.strictEqual(counter.count('#c'), 0);
});

it('sorts later', async () => {
  assert.deepStrictEqual(await later([3, 1, 2], 2), [2, 3]);
});
"""
MORE = """export const words = (text, most = 3) => text.split(' ').slice(0, most);
"""
MORE_TESTS = """import test from 'node:test';
import assert from 'node:assert';
import { words } from '../lib/more.mjs';

test('words', () => {
  const found = words('a b c d');
  assert.deepEqual(found, ['a', 'b', 'c']);
});

test('two words', () => {
  assert.equal(words('a b').length, 2);
});
"""
HEADS = {
    "node": "const { describe, it } = require('node:test');\nconst assert = require('node:assert');\n",
    "mocha": "const assert = require('assert');\n",
    "jest": "const assert = require('assert');\n",
    "vitest": "import { describe, it } from 'vitest';\nimport assert from 'node:assert';\n",
}


def package(root: Path, name: str) -> Path:
    for folder in ("lib", "test"):
        (root / folder).mkdir(parents=True)
    scripts = {
        "node": "node --test",
        "mocha": "mocha -R spec 'test/*.js'",
        "jest": "jest --coverage",
        "vitest": "vitest run",
    }
    needs = {} if name == "node" else {name: {"mocha": "^11", "jest": "^29", "vitest": "^3"}[name]}
    told = {"name": "sums", "version": "1.0.0", "scripts": {"test": scripts[name]}, "devDependencies": needs}
    (root / "package.json").write_text(json.dumps(told))
    (root / "lib/sums.js").write_bytes(CODE.replace("\\n", "\\r\\n").encode())
    tests = (
        TESTS.replace(
            "const { clamp, Counter, later } = require('../lib/sums');",
            "import { clamp, Counter, later } from '../lib/sums.js';",
        )
        if name == "vitest"
        else TESTS
    )
    (root / "test/sums.test.js").write_text(HEADS[name] + tests)
    return root


def make(root: Path, out: Path, *words: str) -> int:
    return main(["tasks", "make", str(root), f"out={out}", "times=1", *words])


def needs_node() -> None:
    if not Path("/usr/bin/node").exists():
        pytest.skip("Node.js is not here: apt-get install nodejs npm")


@pytest.mark.timeout(900)
def test_a_package_becomes_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_node()
    root, out = package(tmp_path / "project", "node"), tmp_path / "project.jsonl"
    (root / "lib/more.mjs").write_text(MORE)
    (root / "test/more.test.mjs").write_text(MORE_TESTS)
    (root / "lib/untested.js").write_text("exports.twice = (n) => n * 2;\n")
    (root / "lib/broken.js").write_text("function (((\n")
    (root / "lib/bundle.js").write_text(f"function f(a) {{ return a < 1; }} // {'x' * 2000}\n")
    assert make(root, out, "limit=4", "network=no", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"] == 4 and told["candidates"]["unreadable file"] == 1
    tasks, problems = load_tasks(out)
    assert not problems and {task.language for task in tasks} == {"javascript"}
    for task in tasks:
        path = task.provenance["function"].partition(":")[0]
        suite = {"lib/sums.js": "test/sums.test.js", "lib/more.mjs": "test/more.test.mjs"}[path]
        assert {test.partition("::")[0] for test in [*task.test.fail_to_pass, *task.test.pass_to_pass]} == {suite}
        assert task.test.pass_to_pass and task.provenance["fails_by"] == "value" and f"({suite})" in task.issue
        assert "instead of" in task.issue and "lib/" not in task.issue
    work = out.with_suffix(".work").read_bytes()
    assert make(root, out, "limit=4", "network=no") == 0  # and none is met again
    assert out.with_suffix(".work").read_bytes() == work
    assert main(["tasks", "check", str(out), "times=1"]) == 0


@pytest.mark.corpora
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["mocha", "jest", "vitest"])
def test_frameworks_that_npm_brings(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_node()
    root, out = package(tmp_path / name, name), tmp_path / f"{name}.jsonl"
    code = make(root, out, "limit=3", "--json")
    said = capsys.readouterr()
    if "npm error" in said.err:
        pytest.skip(f"npm cannot bring {name}")
    assert code == 0, said.err
    assert json.loads(said.out)["tasks"] == 3
    tasks, _ = load_tasks(out)
    assert all(task.test.pass_to_pass and "instead of" in task.issue for task in tasks)


@pytest.mark.timeout(300)
def test_what_cannot_be_made_of_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_node()
    root = package(tmp_path / "project", "node")

    def refused(says: str, *words: str) -> None:
        assert make(root, tmp_path / "x.jsonl", "network=no", *words) == 1
        said = capsys.readouterr().err
        assert says in said, said

    (root / "test/sums.test.js").write_text("require('nowhere');\n")
    refused("no tests that can be read")
    (root / "package.json").write_text(json.dumps({"scripts": {"test": "tape test/*.js"}}))
    refused("runs none of node --test, mocha, jest, vitest")
    (root / "package.json").write_text("{")
    refused("Is it an npm package?", "language=javascript")


@pytest.mark.parametrize(
    "script, name, options, files, builds",
    [
        ("node --test", "node", [], [], []),
        ("c8 --100 node --import tsx --test test/*.ts", "node", ["--import", "tsx"], ["test/*.ts"], []),
        ("nyc mocha -r esm -R dot test/**/*.js && npm run lint", "mocha", ["-r", "esm"], ["test/**/*.js"], []),
        ("npm run build && cross-env A=1 jest --coverage -c x.json", "jest", ["-c", "x.json"], [], ["tsc -p ."]),
        ("npm run lint && npm run unit", "vitest", [], [], []),
        ("vitest run --reporter verbose --watch=false", "vitest", [], [], []),
    ],
)
def test_frameworks_are_read_from_the_script(
    script: str, name: str, options: list[str], files: list[str], builds: list[str]
) -> None:
    scripts = {"test": script, "build": "tsc -p .", "unit": "vitest", "lint": "eslint ."}
    found = framework({"scripts": scripts})
    assert (found.name, list(found.options), list(found.files), list(found.builds)) == (name, options, files, builds)
    assert found.env == ((("A", "1"),) if "A=1" in script else ())


def test_frameworks_are_read_from_the_dependencies_where_there_is_no_script() -> None:
    assert framework({"devDependencies": {"mocha": "1"}}).name == "mocha"
    with pytest.raises(CrrlError, match="runs none of"):
        framework({"devDependencies": {"ava": "1"}, "scripts": {"test": "ava"}})


def test_lines_of_a_traced_file_stay_where_they_are() -> None:
    made = traced("a.js", (HEADS["node"] + TESTS).encode(), frozenset({"clamp", "count"}), "sums")
    assert made is not None
    before, after = (HEADS["node"] + TESTS).splitlines(), made.decode().splitlines()
    assert len(after) > len(before) and after[3] == before[3]
    assert '__crrl_call(9, "clamp"' in after[8] or '"clamp"' in after[7]
    assert traced("a.js", b"test('a', () => { other(1); });\n", frozenset({"clamp"}), "sums") is None


def test_hidden_tests_are_gone_and_one_is_left() -> None:
    text = without_tests("a.test.js", TESTS.encode(), {"counts words", "takes limits"}).decode()
    assert (
        "counts words" not in text
        and "takes limits" not in text
        and "sorts later" in text
        and "describe('clamp'" in text
    )
    alone = b"it('a', () => { f(); });\n"
    assert without_tests("a.test.js", alone, {"a"}) == alone


def test_a_returned_receiver_is_told_by_what_it_does_later() -> None:
    """`return this` of a chained method: its insides are nothing that a user sees."""
    found = functions("a.js", CODE.encode())
    assert [f.name for f in found] == ["clamp", "Counter.constructor", "Counter.add", "Counter.count", "later"]
    kinds = {mutant.kind for mutant in found[2].mutants(random.Random(0), WEIGHTS)}
    assert {"stale_state", "call", "loop", "dropped_case"} <= kinds


def test_values_that_cannot_be_shown_are_told_by_their_source() -> None:
    """Callbacks, insides of objects, long values; a receiver by its variables' values, but not inside of strings."""
    data = b"it('a', () => {\n  f();\n});\n"
    plain = {"line": 2, "names": [None], "args": ["1"], "after": ["1"], "returned": "2"}
    entries = [
        plain | {"place": 0, "name": "f", "names": ["callback"], "args": ["[Function: callback]"]},
        plain | {"place": 1, "name": "f", "returned": "<ref *1> Response { }"},
        plain | {"place": 2, "name": "f", "returned": "'" + "x" * 700 + "'"},
        plain | {"place": 3, "name": "f", "returned": "'[Function: no]'"},
        plain | {"place": 4, "name": "make(text).add('text').get", "locals": {"text": "'b'"}},
        plain | {"place": 5, "name": "object.get", "locals": {"object": "<object>"}},
    ]
    calls = read("a.js", data, "\n".join(map(json.dumps, [*entries[::-1]])) + '\n{"cut')["a"].calls
    assert calls[0].args == (("?", "callback"),)
    assert [call.returned for call in calls[1:4]] == ["<object>", "<object>", "'[Function: no]'"]
    assert (calls[4].name, calls[4].args[0]) == ("get", ("self", "make('b').add('text')"))
    assert (calls[5].name, calls[5].args[0]) == ("object.get", ("self", "object"))
