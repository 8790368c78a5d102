"""Invariant 6 over vLLM's wire: what is a sample, and what is an error. Recorded answers of the real server are read in
test_vllm_recorded.py; here are answers that it must never give."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crrl.engines import EngineError, Request
from crrl.engines.vllm import protocol


def chunk(ids: list[int], versions: list[tuple[str, int, int]] | None, finish: str | None = None, **other: Any) -> str:
    content = [{"token_id": id, "logprob": -1.0, "rank": 1} for id in ids]
    choice = {
        "index": 0,
        "token_ids": ids,
        "logprobs": {"content": content},
        "finish_reason": finish,
        "weight_versions": versions and [{"version": v, "start": a, "end": b} for v, a, b in versions],
    }
    return f"data: {json.dumps({'choices': [choice | other]})}"


def test_each_token_has_the_version_that_made_it() -> None:
    stream = protocol.Stream("r")
    first = stream.read(chunk([5, 6, 7], [("1", 0, 3)]))
    second = stream.read(chunk([8, 9], [("1", 0, 4), ("2", 4, 5)]))
    last = stream.read(chunk([2], [("1", 0, 4), ("2", 4, 6)], "stop"))
    assert first is not None and second is not None and last is not None
    assert (first.versions, second.versions, last.versions) == ([1, 1, 1], [1, 2], [2])
    assert (first.finish, last.finish, stream.finished) == (None, "stop", True)


def test_a_cancelled_one_may_end_without_a_token() -> None:
    last = protocol.Stream("r").read(chunk([], None, "abort"))
    assert last is not None and (last.ids, last.versions, last.finish) == ([], [], "cancelled")


@pytest.mark.parametrize("line", ["", ": keep-alive", "data: [DONE]", 'data: {"choices": [], "usage": {}}', "event: x"])
def test_lines_without_tokens(line: str) -> None:
    assert protocol.Stream("r").read(line) is None


NAN = float("nan")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (chunk([5], None), "without crrl's plug-in"),
        (chunk([5, 6], [("1", 0, 1)]), "which weights made 1 tokens"),
        (chunk([5], [("default", 0, 1)]), "weights that no run has pushed"),
        (chunk([5], [("1.5", 0, 1)]), "no run has pushed"),
        (chunk([5], [("", 0, 1)]), "no run has pushed"),
        (chunk([5], [("²", 0, 1)]), "no run has pushed"),
        (chunk([5], [("1", 0, 1)], logprobs=None), "without their log-probs"),
        (chunk([5], [("1", 0, 1)], logprobs={"content": []}), "without their log-probs"),
        (
            chunk([5], [("1", 0, 1)], logprobs={"content": [{"token_id": 6, "logprob": -1.0}]}),
            "without their log-probs",
        ),
        (chunk([5], [("1", 0, 1)], logprobs={"content": [{"token_id": 5, "logprob": NAN}]}), "for a log-prob"),
        (chunk([5], [("1", 0, 1)], logprobs={"content": [{"token_id": 5, "logprob": 0.5}]}), "for a log-prob"),
        (chunk([5], [("1", 0, 1)], logprobs={"content": [{"token_id": 5, "logprob": None}]}), "cannot be read"),
        (chunk([5], [("1", 0, 1)], logprobs={"content": [{"logprob": -1.0}]}), "cannot be read"),
        (chunk([5], [("1", 0, 1)], "error"), "ended the generation: error"),
        ('data: {"choices": [{"index": 0}]}', "cannot be read"),
        ('data: {"error": {"message": "EngineCore died", "code": 500}}', "EngineCore died"),
        ('data: {"choices": [', "no JSON"),
    ],
)
def test_what_is_no_sample_is_an_error(line: str, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        protocol.Stream("r").read(line)


def test_what_is_asked_for_truncates_nothing() -> None:
    body = protocol.body(
        Request("r", [1, 2, 3], 50, temperature=0.7, stop_ids=[2], seed=2**64 - 1), context=40, seeded=True
    )
    assert body["token_ids"] == [1, 2, 3]
    assert body["stream"] is True
    sampling = body["sampling_params"]
    assert sampling["max_tokens"] == 37  # what the context leaves
    assert 0 <= sampling["seed"] < 2**63
    assert "seed" not in protocol.body(Request("r", [1], 5, seed=3), context=40, seeded=False)["sampling_params"]
    assert (sampling["stop_token_ids"], sampling["ignore_eos"]) == ([2], True)
    assert not {"top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"} & set(
        sampling
    )


def test_scores_are_those_of_the_prompts_own_tokens() -> None:
    entry = {"7": {"logprob": -0.5}, "9": {"logprob": -0.1}}
    assert protocol.scores({"prompt_logprobs": [None, entry, entry]}, [1, 7, 9]) == [-0.5, -0.1]
    for broken in (
        {},
        {"prompt_logprobs": None},
        {"prompt_logprobs": [None, entry]},
        {"prompt_logprobs": [None, {}, {}]},
    ):
        with pytest.raises(EngineError, match="no log-probs of a prompt"):
            protocol.scores(broken, [1, 7, 9])


@pytest.mark.parametrize(
    ("answer", "message"),
    [({"error": {"message": "a"}}, "a"), ({"message": "b"}, "b"), ({"error": "c"}, "c"), ("d", "d"), ([], "[]")],
)
def test_errors_in_any_form(answer: Any, message: str) -> None:
    assert protocol.message_of(answer) == message
