"""Constrained decoding: a grammar says which tokens may come next.

Grammars are llguidance's own (Lark, with `%json SCHEMA` and `<[TOKEN]>`), compiled for one tokenizer. A mask touches
only which token is drawn: the log-prob that is recorded stays that of the whole distribution, so such samples are for
serving and never for training.
"""

from __future__ import annotations

import json

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from crrl.engines.marks import is_mark


class Matcher:
    """One generation under a grammar."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str) -> None:
        self._inner = LLMatcher(tokenizer, grammar, log_level=0)
        self._size = tokenizer.vocab_size

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool, one per entry of the vocabulary."""
        bits = np.frombuffer(self._inner.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, bitorder="little", count=self._size).astype(bool)

    def take(self, token: int) -> None:
        self._inner.consume_token(token)

    @property
    def broken(self) -> str:
        """Why the grammar can go on no more (its limits); "" where it can."""
        return self._inner.get_error().splitlines()[0] if self._inner.is_error() else ""


class Grammars:
    """What a model's tokenizer makes of grammars.

    Args:
        tokenizer: the text of its tokenizer.json. vocab_size: of the model's logits.
    """

    def __init__(self, tokenizer: str, vocab_size: int) -> None:
        told = json.loads(tokenizer)
        for token in told.get("added_tokens", []):
            token["special"] = is_mark(token["content"], token["special"])
        self._tokenizer = LLTokenizer(json.dumps(told), n_vocab=vocab_size)

    def begin(self, grammar: str) -> Matcher:
        return Matcher(self._tokenizer, grammar)


def problem(grammar: str) -> str:
    """Why a grammar cannot be compiled; "" if it can."""
    return LLMatcher.validate_grammar(grammar)
