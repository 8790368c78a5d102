"""The dialect of `/v1/completions`: raw text or token ids in, raw text out; no template, no tools, no reasoning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from crrl.gateway.api import Ask, BadRequest
from crrl.gateway.dialects import common
from crrl.gateway.dialects.common import Answer, Incoming, encode
from crrl.gateway.stream import Delta

_LOGGED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_MAX_TOKENS = 16  # the API's own default


class _Body(msgspec.Struct):
    prompt: str | list[Any]
    model: str = "policy"
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logprobs: int | bool | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logit_bias: Any = None


_decoder = msgspec.json.Decoder(_Body)
error = common.openai_error


def context_full(message: str) -> bytes:
    return error(400, message, "context_length_exceeded", "prompt")


def read(raw: bytes, headers: Mapping[str, str]) -> Incoming:
    body = common.decode(_decoder, raw)
    common.refuse(
        {
            "echo": bool(body.echo),
            "suffix": bool(body.suffix),
            "logprobs": body.logprobs not in (None, False) and int(body.logprobs or 0) > 0,
            "best_of": body.best_of not in (None, body.n or 1),
            "logit_bias": bool(body.logit_bias),
        }
    )
    asked: dict[str, float | int | str | None] = {name: getattr(body, name) for name in _LOGGED}
    asked["max_tokens"] = common.max_tokens("max_tokens", _MAX_TOKENS if body.max_tokens is None else body.max_tokens)
    ask = Ask(
        prompt=_prompt(body.prompt),
        asked=asked,
        stop=common.stop_strings("stop", body.stop),
        n=common.answers(body.n),
        retry=common.is_retry(headers),
        hints=common.hints(headers),
    )
    usage = bool((body.stream_options or {}).get("include_usage"))
    return Incoming(ask, body.model, bool(body.stream), {"usage": usage, "logprobs": body.logprobs is not None})


def _prompt(prompt: str | list[Any]) -> str | list[int]:
    """One prompt: a string or a list of token ids, or a list that holds one of them."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if not prompt:
        raise BadRequest("'prompt' must not be empty.", "prompt")
    if isinstance(prompt, str) or all(type(token) is int and token >= 0 for token in prompt):
        return cast("str | list[int]", prompt)
    raise BadRequest("'prompt' must be one string or one list of token ids.", "prompt")


def whole(answer: Answer) -> bytes:
    choices = []
    for i, turn in enumerate(answer.turns):
        assert turn.parsed is not None
        logprobs = _logprobs(answer, i, 0, len(turn.ids), 0) if answer.incoming.options["logprobs"] else None
        choices.append({"index": i, "text": turn.parsed.content, "logprobs": logprobs, "finish_reason": turn.finish})
    return encode({**_head(answer), "choices": choices, "usage": common.usage(answer.turns)})


def _head(answer: Answer) -> dict[str, Any]:
    name = answer.name("cmpl-")
    return {"id": name, "object": "text_completion", "created": answer.created, "model": answer.incoming.model}


def _logprobs(answer: Answer, choice: int, start: int, end: int, offset: int) -> dict[str, Any]:
    """`offset`: characters before, in the answer."""
    tokens = answer.logprobs(choice, start, end)
    offsets = []
    for entry in tokens:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in tokens],
        "token_logprobs": [entry["logprob"] for entry in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }


class _Events:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._usage, self._logprobs = answer.incoming.options["usage"], answer.incoming.options["logprobs"]
        self._told = [(0, 0)] * len(answer.turns)  # tokens whose log-probs have been sent, and their characters
        self._head = b"data: " + encode(_head(answer))[:-1]

    def start(self) -> bytes:
        return b""

    def delta(self, choice: int, delta: Delta) -> bytes:
        return self._chunk(choice, delta.text, None, delta.upto)

    def finish(self, choice: int) -> bytes:
        turn = self._answer.turns[choice]
        return self._chunk(choice, "", turn.finish, len(turn.ids))

    def end(self) -> bytes:
        done = b"data: [DONE]\n\n"
        if self._usage:
            usage = encode(common.usage(self._answer.turns))
            return self._head + b',"choices":[],"usage":' + usage + b"}\n\n" + done
        return done

    def keep_alive(self) -> bytes:
        return common.comment()

    def broken(self, message: str) -> bytes:
        return b"data: " + error(503, message, "engine_failed") + b"\n\n"

    def _chunk(self, choice: int, text: str, finish: str | None, upto: int) -> bytes:
        shape: dict[str, Any] = {"index": choice, "text": text, "logprobs": None, "finish_reason": finish}
        told, offset = self._told[choice]
        if self._logprobs and upto > told:
            shape["logprobs"] = new = _logprobs(self._answer, choice, told, upto, offset)
            self._told[choice] = upto, offset + sum(map(len, new["tokens"]))
        return self._head + b',"choices":[' + encode(shape) + b"]}\n\n"


events = _Events
