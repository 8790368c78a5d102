"""What is nearly the same: the Jaccard index of two texts' shingles (runs of five words) is at least a bound.

Pairs are found by MinHash and banding (Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3) and then
counted exactly, so what is found is near; what is near is missed once in 10 million pairs at 0.8, once in 8 at 0.5.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

WORDS = 5
BANDS, ROWS = 32, 4  # a pair at 0.8 agrees in a band with 0.8 ** 4 = 0.41; in none of 32 with 5e-8


def shingles(text: str) -> frozenset[int]:
    """Hashes of every five words in a row; of a shorter text, of all of it. Numbers and marks are words."""
    words = re.findall(r"\w+|[^\w\s]", text)
    parts = (" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1)))
    return frozenset(int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big") for part in parts)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    both = len(one & other)
    return both / (len(one) + len(other) - both) if one or other else 1.0


def first_of_each(texts: Sequence[frozenset[int]], bound: float) -> list[int]:
    """For each text the earliest kept one that it is near to, itself if there is none. Earlier texts are preferred."""
    nearest = list(range(len(texts)))
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        keys = [(band, part.tobytes()) for band, part in enumerate(_signature(text).reshape(BANDS, ROWS))]
        candidates = sorted({other for key in keys for other in buckets[key]})
        nearest[number] = next((other for other in candidates if jaccard(text, texts[other]) >= bound), number)
        if nearest[number] == number:
            for key in keys:
                buckets[key].append(number)
    return nearest


SEEDS = np.random.default_rng(0).integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def _signature(text: frozenset[int]) -> np.ndarray:
    """The smallest value under each of 128 hashes, which mix as splitmix64 does (Steele et al. 2014): under merely
    linear ones the smallest value would be the same shingle's in nearly all."""
    mixed = np.fromiter(text, np.uint64, len(text))[:, None] ^ SEEDS  # products wrap around at 2 ** 64, as they shall
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    smallest: np.ndarray = (mixed ^ (mixed >> np.uint64(31))).min(0)
    return smallest
