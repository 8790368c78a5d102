"""Keeps keys and values of finished sequences, and finds the one that shares the longest prefix with a new prompt.

Token-exact: ids are compared with ids, all kept sequences at once as rows of one matrix (a few hundred rows of a few
thousand ids: tens of microseconds). A kept sequence that a newer one of the same attempt continues is dropped; beyond
the token budget the least recently used goes. A weight push drops everything, an attempt that is over or lost what is
its own.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor


def common(matrix_ET: np.ndarray, ids_T: np.ndarray) -> np.ndarray:
    """For each row, how many of its first ids equal those of `ids` (rows are padded with -1)."""
    width = min(matrix_ET.shape[1], len(ids_T))
    if not width:
        return np.zeros(len(matrix_ET), np.int64)
    differs = matrix_ET[:, :width] != ids_T[:width]
    return np.where(differs.any(1), differs.argmax(1), width)


class PrefixCache:
    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tokens = 0
        self._ids = np.full((16, 256), -1, np.int64)
        self._content: list[list[Tensor]] = []
        self._lengths: list[int] = []
        self._used: list[int] = []
        self._scopes: list[str] = []
        self._clock = 0

    def __len__(self) -> int:
        return len(self._content)

    def find(self, ids_T: np.ndarray) -> tuple[int, list[Tensor]]:
        """The longest kept beginning of `ids`: its length, and the content of a sequence that has it."""
        if not self._content:
            return 0, []
        lengths = common(self._ids[: len(self)], ids_T)
        best = int(lengths.argmax())
        self._clock += 1
        self._used[best] = self._clock
        return int(lengths[best]), self._content[best]

    def add(self, ids_T: np.ndarray, content: list[Tensor], scope: str) -> None:
        length = len(ids_T)
        if length > self.max_tokens:
            return
        if self._content:
            lengths = common(self._ids[: len(self)], ids_T)
            covered = [i for i in range(len(self)) if lengths[i] == self._lengths[i] and self._scopes[i] == scope]
            for i in reversed(covered):
                self._remove(i)
        while self.tokens + length > self.max_tokens:
            self._remove(min(range(len(self)), key=self._used.__getitem__))
        rows, width = self._ids.shape
        if len(self) == rows or length > width:
            grown = np.full((2 * rows if len(self) == rows else rows, max(width, 2 * length)), -1, np.int64)
            grown[:rows, :width] = self._ids
            self._ids = grown
        self._ids[len(self)] = -1
        self._ids[len(self), :length] = ids_T
        self._clock += 1
        self._content.append(content)
        self._lengths.append(length)
        self._used.append(self._clock)
        self._scopes.append(scope)
        self.tokens += length

    def _remove(self, i: int) -> None:
        self.tokens -= self._lengths[i]
        last = len(self) - 1
        self._ids[i] = self._ids[last]
        self._content[i], self._lengths[i] = self._content[last], self._lengths[last]
        self._used[i], self._scopes[i] = self._used[last], self._scopes[last]
        del self._content[last], self._lengths[last], self._used[last], self._scopes[last]

    def forget(self, scope: str) -> None:
        for i in reversed(range(len(self))):
            if self._scopes[i] == scope:
                self._remove(i)

    def drop(self) -> None:
        self.__init__(self.max_tokens)  # type: ignore[misc]
