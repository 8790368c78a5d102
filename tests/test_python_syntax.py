"""Threads read Python at the same time: decoys, screening and patches of many episodes."""

from __future__ import annotations

import ast
import gc
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import crrl
from crrl import python_syntax


@pytest.fixture
def collector_that_runs_python() -> Iterator[None]:
    """So that the interpreter changes threads amid a tree."""
    ours, interval = lambda phase, info: sum(range(50)), sys.getswitchinterval()
    gc.callbacks.append(ours)
    sys.setswitchinterval(1e-6)
    yield
    gc.callbacks.remove(ours)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("collector_that_runs_python")
def test_threads_parse_at_the_same_time() -> None:
    """Fails without the lock on CPython 3.11."""
    source = "\n".join(f"def f{n}(x):\n    return [g(x, {n}), [h(y + {n}) for y in range(x)]]\n" for n in range(300))
    with ThreadPoolExecutor(8) as pool:
        trees = list(pool.map(python_syntax.parse, [source] * 48))
        values = list(pool.map(python_syntax.literal, ["[1, (2, {'a': None})]"] * 48))
    assert {len(tree.body) for tree in trees} == {300} and values == [[1, (2, {"a": None})]] * 48


def test_nothing_parses_beside_it() -> None:
    direct = re.compile(r"\bast\.(parse|literal_eval)\((?!node|part|test)")
    # Run in a box of its own; the one that may; text of generated functions.
    others = ("trace_plugin.py", "python_syntax.py", "in_python.py")
    root = Path(crrl.__file__).parent
    found = [f.name for f in root.rglob("*.py") if f.name not in others and direct.search(f.read_text("utf-8"))]
    assert found == [] and ast.dump(python_syntax.parse(b"x = 1")) == ast.dump(ast.parse("x = 1"))
