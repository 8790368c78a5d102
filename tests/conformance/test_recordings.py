"""Recorded requests of real agents through the real gateway: nothing is refused, nothing re-tokenised."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from itertools import groupby
from pathlib import Path

import pytest
from gateway_kit import TOOLS

from crrl.cli.main import main
from crrl.conformance import check, tokens
from crrl.conformance.recording import Recorded, Reply, Writer, read, sessions
from crrl.errors import CrrlError
from crrl.gateway import load_renderer, tree

# What really happened. `changed`: assistant turns in histories that the agent had rewritten: broken calls that opencode
# and OpenHands replace and pi repairs. mini-swe-agent throws an answer without a good call away and asks again.
EXPECTED = {
    "nano-agent": {"changed": 0, "replayed": 1, "branches": {"first": 12}},
    "mini-swe-agent": {"changed": 0, "replayed": 1, "branches": {"first": 8, "resampled": 3}},
    "opencode": {
        "changed": 3,
        "replayed": 1,
        "branches": {"compacted": 1, "compaction": 1, "first": 7, "rewritten": 1, "side": 7},
    },
    "openhands": {"changed": 4, "replayed": 0, "branches": {"first": 7, "rewritten": 1}},
    "pi": {"changed": 4, "replayed": 1, "branches": {"first": 15, "rewritten": 1}},
    "codex": {"changed": 0, "replayed": 1, "branches": {"compacted": 4, "compaction": 4, "first": 9}},
}
NEW_ROWS = ("first", "rewritten", "compacted")  # branches that end in a row of their own, if they are used
QWEN3 = load_renderer(tokens.tokenizer(), "qwen3")


async def checked(run: list[Recorded]) -> check.Report:
    return await check.check(run, QWEN3)


def turns_in(body: dict) -> int:
    """Assistant turns of a history, counted in the body as it was sent. Items of one turn stand together."""
    if "messages" in body:
        return sum(message["role"] == "assistant" for message in body["messages"])
    of_model = [
        item["type"] in ("reasoning", "function_call") or item.get("role") == "assistant" for item in body["input"]
    ]
    return sum(mine for mine, _ in groupby(of_model))


@pytest.mark.parametrize("agent", EXPECTED)
def test_every_recorded_agent_passes(agent: str, test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = test_data / "agent-requests" / f"{agent}.jsonl"
    code = main(["gateway", "check", str(file), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0, [s["problems"] for s in found["sessions"] if s["problems"]]
    recorded = read(file)
    assert found["accepted"] == found["requests"] == len(recorded)
    assert found["re_rendered"] == found["kinds_differ"] == 0
    assert {name: found[name] for name in EXPECTED[agent]} == EXPECTED[agent]
    assert found["rows"] == sum(found["branches"].get(branch, 0) for branch in NEW_ROWS)
    turns = 0  # in the histories that reached the engine: a retry gets what was sampled for the request before it
    for run in sessions(recorded).values():
        for before, one in zip([None, *run], run, strict=False):
            retry = before is not None and before.resp == "FAIL-drop"
            if (isinstance(one.resp, Reply) or one.resp == "FAIL-drop") and not retry:
                turns += turns_in(one.body)
    assert found["matched"] + found["changed"] == turns


def base(test_data: Path, agent: str = "pi") -> list[Recorded]:
    recorded = read(test_data / "agent-requests" / f"{agent}.jsonl")
    return next(run for (_, scenario), run in sessions(recorded).items() if scenario == "base")


def test_a_tree_that_re_renders_fails_the_check(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = base(test_data)
    assert asyncio.run(checked(run)).passed
    monkeypatch.setattr(tree, "_unchanged", lambda found, message: None)
    report = asyncio.run(checked(run))
    assert not report.passed and report.total("re_rendered") > 0
    assert report.total("accepted") == len(run)  # every request was answered, as it were


def test_what_is_not_answered_as_expected_fails_the_check(test_data: Path) -> None:
    first, *rest = base(test_data)
    for body in ({**first.body, "n": "many"}, {"model": "m"}):
        report = asyncio.run(checked([dataclasses.replace(first, body=body), *rest]))
        assert not report.passed and report.total("accepted") == len(rest)
        assert "answered 400" in report.sessions[0].problems[0]


def test_probes_faults_and_a_changed_turn() -> None:
    """Another's fault and a path that is no model API are expected; a changed turn is a branch and no defect."""
    ask = [{"role": "user", "content": "go"}]
    said = {"role": "assistant", "content": "as I said", "tool_calls": []}

    def one(i: int, messages: list, resp: Reply | str | int, path: str = "/v1/chat/completions") -> Recorded:
        body = {"model": "m", "messages": messages, "tools": TOOLS} if messages else None
        return Recorded("v", "s", i, 0.0, "POST" if messages else "GET", path, {}, body, resp)

    run = [
        one(1, [], 404, "/v1/somewhere?else=1"),
        one(2, [], 200, "/v1/models"),
        one(3, ask, "FAIL-529"),
        one(4, ask, Reply("as I say", "because")),
        one(5, [*ask, said, *ask], Reply("ok")),
        one(6, [*ask, said, *ask, {**said, "content": " ok"}, *ask], Reply("done")),
        one(7, [], 503),
    ]
    report = asyncio.run(checked(run))
    assert report.passed, report.sessions[0].problems
    (session,) = report.sessions
    assert (session.accepted, session.matched, session.changed, session.rows) == (7, 1, 2, 2)
    assert session.branches == {"first": 1, "rewritten": 1}


def test_a_recording_reads_back_as_it_was_written(test_data: Path, tmp_path: Path) -> None:
    for agent in ("codex", "opencode"):
        recorded = read(test_data / "agent-requests" / f"{agent}.jsonl")
        writer = Writer(tmp_path / f"{agent}.jsonl")
        for one in recorded:
            writer.write(one)
        writer.close()
        assert read(tmp_path / f"{agent}.jsonl") == recorded
        whole = sum(len(json.dumps(one.body)) for one in recorded)
        assert (tmp_path / f"{agent}.jsonl").stat().st_size < whole / 3  # what repeats stands there once


@pytest.mark.parametrize("line", ["{", "[]", '{"variant": "v"}', '{"@ref": 3}'])
def test_a_broken_line_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(CrrlError, match=r"r\.jsonl, line 2"):
        read(file)
