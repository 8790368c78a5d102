"""vLLM's `/inference/v1/generate`: token ids in; token ids, log-probs and weight versions out. Nothing here does I/O.

Invariant 6: a chunk without a log-prob for each token, or with a token whose weights are unknown, is an error, never a
sample. Log-probs are those of `--logprobs-mode processed_logprobs`: log softmax(logits / T), because requests ask for
no truncation and no penalty.
"""

from __future__ import annotations

import json
import math
from typing import Any

from crrl.engines import EngineError
from crrl.engines.api import Chunk, FinishReason, Request

PATH = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
SESSION = "X-Session-ID"
FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "cancelled"}


def body(request: Request, context: int, *, seeded: bool) -> dict[str, Any]:
    """Of a streamed generation."""
    noise = {"seed": request.seed & (2**63 - 1)} if seeded else {}
    return {
        "request_id": request.id,
        "token_ids": request.prompt_ids,
        "stream": True,
        "sampling_params": {
            "max_tokens": min(request.max_tokens, context - len(request.prompt_ids)),
            "temperature": request.temperature,
            **noise,
            "stop_token_ids": request.stop_ids,
            "ignore_eos": True,  # a generation ends at the stop ids of the renderer, whatever the model's folder says
            "logprobs": 0,
            "detokenize": False,
        },
    }


def score_body(ids: list[int]) -> dict[str, Any]:
    """Of a request for the log-probs of its own prompt. vLLM computes them all anew: it reads no cache for them."""
    sampling = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
    return {"token_ids": ids, "stream": False, "sampling_params": sampling}


class Stream:
    """Reads the lines of one answer, in order.

    Raises:
        EngineError: the server reports a failure, or what it sends is no sample.
    """

    def __init__(self, request_id: str) -> None:
        self._id = request_id
        self._tokens = 0
        self.finished = False

    def read(self, line: str) -> Chunk | None:
        """The chunk in a line of the event stream; None: it has none."""
        if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
            return None
        try:
            event = json.loads(data)
        except ValueError:
            raise self._error(f"sent a line that is no JSON: {data[:200]}") from None
        if "error" in event:
            raise self._error(f"failed: {message_of(event)}")
        choices = event.get("choices")
        if not choices:
            return None
        try:
            return self.chunk(choices[0])
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(f"sent a chunk that cannot be read ({type(error).__name__}: {error})") from None

    def chunk(self, choice: dict[str, Any]) -> Chunk:
        """The next of the answer's only choice."""
        ids: list[int] = choice["token_ids"] or []
        content = (choice["logprobs"] or {}).get("content") or []
        if [entry["token_id"] for entry in content] != ids:
            raise self._error("sent tokens without their log-probs")
        logprobs = [float(entry["logprob"]) for entry in content]
        if bad := [value for value in logprobs if not (math.isfinite(value) and value <= 1e-6)]:
            raise self._error(f"sent {bad[0]} for a log-prob")
        versions = self._versions(choice.get("weight_versions"), len(ids))
        self._tokens += len(ids)
        reason = choice.get("finish_reason")
        if reason is not None and reason not in FINISHES:
            raise self._error(f"ended the generation: {reason}")
        self.finished = reason is not None
        return Chunk(ids, logprobs, versions, FINISHES[reason] if reason is not None else None)

    def _versions(self, spans: list[dict[str, Any]] | None, count: int) -> list[int]:
        """Of the next `count` tokens. `spans` are of the whole answer so far."""
        if not count:
            return []
        if spans is None:
            raise self._error("does not say with each chunk which weights made it: it runs without crrl's plug-in")
        found: list[int] = []
        for span in spans:
            inside = range(max(span["start"], self._tokens), min(span["end"], self._tokens + count))
            if inside:
                found += [version_of(span["version"])] * len(inside)
        if len(found) != count:
            raise self._error(f"does not say which weights made {count - len(found)} tokens")
        return found

    def _error(self, what: str) -> EngineError:
        return EngineError(f"the vLLM server {what} (request {self._id})")


def whole(answer: dict[str, Any]) -> Chunk:
    """Of a request that was not streamed. Raises EngineError."""
    return Stream("whole").chunk(answer["choices"][0])


def version_of(name: str) -> int:
    """The policy version that a server's label names. Raises EngineError: another's label, or a new server's."""
    if not (isinstance(name, str) and name.isascii() and name.isdecimal()):
        raise EngineError(
            f"the vLLM server serves weights that no run has pushed (version {name!r}): it was restarted, or something "
            "else pushes to it"
        )
    return int(name)


def scores(answer: dict[str, Any], ids: list[int]) -> list[float]:
    """The log-probs of all tokens but the first. Raises EngineError."""
    try:
        pairs = list(zip(answer["prompt_logprobs"], ids, strict=True))
        return [float(entry[str(token)]["logprob"]) for entry, token in pairs[1:]]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"the vLLM server gave no log-probs of a prompt ({type(error).__name__}: {error})") from None


def message_of(answer: Any) -> str:
    """The words of an error in vLLM's form, or in any other."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message).strip()[:500]
