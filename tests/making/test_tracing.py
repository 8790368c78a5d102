"""Traces of tests: coroutines have the result that is awaited; a machine that gives no core is no reason to refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from crrl.errors import LostError
from crrl.making import trace_plugin, tracing
from crrl.making.tracing import Tracer
from crrl.rewards.task_judge import SITE, TaskJudge
from crrl.sandbox.api import Mount, Sandbox
from crrl.task import Source

MANY = 40  # of the plugin

CODE = """import asyncio


async def size(x):
    try:
        raise KeyError(x)
    except KeyError:
        await asyncio.sleep(0.001)
    return await larger(x)


async def larger(x):
    await asyncio.sleep(0)
    return x + 1


async def refused(x):
    await asyncio.sleep(0)
    raise ValueError(x)


async def every(x):
    for n in range(x):
        await asyncio.sleep(0)
        yield n


def plain(x):
    return [n for n in range(x)]


def endless(x):
    while True:
        try:
            yield x
        except Exception:
            pass
"""
TESTS = """import asyncio
import time

import pytest
from m import endless, every, plain, refused, size


def test_size():
    assert asyncio.run(size(1)) == 2


def test_refused():
    with pytest.raises(ValueError):
        asyncio.run(refused(1))


def test_every():
    async def listed():
        return [n async for n in every(2)]

    assert asyncio.run(listed()) == plain(2)


def test_waits():
    time.sleep(60)


def test_busy():
    while True:
        pass


def test_endless():
    assert plain(1) == [0]
    for _ in endless(7):
        pass
"""
SOURCE = Source(files={"m.py": CODE, "test_m.py": TESTS})


@pytest.fixture
def tracer(boxes: Sandbox, task_judge: TaskJudge, state_dir: Path) -> Tracer:
    return Tracer(boxes, state_dir, Mount(task_judge.harness.path / "site", SITE), None)


@pytest.mark.timeout(300)
async def test_a_coroutine_gives_what_is_awaited(tracer: Tracer) -> None:
    tests = ["test_m.py::test_size", "test_m.py::test_refused", "test_m.py::test_every"]
    found = await tracer.run(SOURCE, {}, tests, [], [])
    (size,), (refused,), (plain,) = (found[test].calls for test in tests)
    assert (size.name, size.returned, size.error, size.awaited) == ("size", "2", None, True)
    assert (refused.returned, refused.error) == (None, ("ValueError", "1"))
    assert (plain.name, plain.returned, plain.awaited) == ("plain", "[0, 1]", False)


def test_what_a_function_made_is_shown_as_what_it_is() -> None:
    def made() -> int:
        return 1

    class Made:
        pass

    of = "test_what_a_function_made_is_shown_as_what_it_is"
    assert trace_plugin.shown([made, Made]) == f"[<function of {of}>, <class of {of}>]"
    assert trace_plugin.shown([sorted, dict]) == "[sorted, dict]"


@pytest.mark.timeout(300)
async def test_a_run_that_got_no_core_is_lost_and_one_that_never_ends_says_nothing(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "TIMEOUT_S", 8.0)
    with pytest.raises(LostError, match="starved"):
        await tracer.run(SOURCE, {}, ["test_m.py::test_waits"], [], [])
    monkeypatch.setattr(tracing, "TIMEOUT_S", 3.0)
    box_s = 0.5  # of CPU: what a starved machine may give, or more
    try:
        assert await tracer.run(SOURCE, {}, ["test_m.py::test_busy"], [], []) == {}
    except LostError:
        assert tracer.spent_s < box_s + 3.0 / 4


@pytest.mark.timeout(300)
async def test_a_test_that_never_ends_is_stopped_and_the_others_keep_their_traces(tracer: Tracer) -> None:
    tests = ["test_m.py::test_size", "test_m.py::test_endless", "test_m.py::test_waits"]
    found = await tracer.run(SOURCE, {}, tests, [], [], cpu_s=0.5)
    assert list(found) == tests[:2]
    assert found[tests[0]].calls[0].returned == "2"
    endless = found[tests[1]]
    assert endless.error is not None and endless.error[0] == "EndlessError"
    plain, yields = endless.calls
    assert plain.returned == "[0]"
    assert yields.yielded == ("7",) * MANY + ("...",)  # cut short, and it says so
    assert tracer.spent_s < tracing.TIMEOUT_S / 4
