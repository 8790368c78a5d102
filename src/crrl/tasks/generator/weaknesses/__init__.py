"""Generated functions to classify: pairs in Python and C, with one weakness each, and without (corpus.ask=classify).

`task(split, seed, index)` gives function number `index` of a split, always the same one: 2 p and 2 p + 1 are both
versions of pair p, in an order that tells nothing. Of `train`, where a group is of a pair, it is the first version of
pair number `index`, and `versions` gives both. Splits are those of generated repairs (`generate.py`): families of
`rl_instances` are those that only RL teaches, those of `unseen_families` occur nowhere else, and a hash of the fixed
version parts the pairs of test splits from those of training and of the warm start, whatever the seeds.

Both versions have the same other lines, among them look-alikes: a dangerous call on a constant, care for what needs
none. So neither a word nor the length tells the label (a test tries).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from crrl.task import Task
from crrl.tasks.classification import pair_tasks
from crrl.tasks.generator.weaknesses import in_c, in_python
from crrl.tasks.generator.weaknesses.family import FAMILIES, Family, Words

VERSION = "1"
"""Part of every seed and name: raised when generation changes."""
UNSEEN = ["sql_percent", "popen", "html_percent", "syslog", "add_up", "looked_up"]
RL = ["sql_fstring", "shell", "join_open", "yaml_load", "sprintf", "memcpy", "index", "freed", "allocated"]
SFT = [name for name in FAMILIES if name not in UNSEEN and name not in RL]
TEST_SPLITS = {"rl_instances": RL, "sft_instances": SFT, "unseen_families": UNSEEN}
TEST_SHARE = 26  # of 256
LEAST_FILLERS, MOST_FILLERS = 0, 3
ALIKE_SHARE = 0.35  # of the filling lines


@dataclass(frozen=True)
class Pair:
    family: Family
    before: str
    after: str

    @property
    def held_out(self) -> bool:
        return hashlib.blake2b(self.after.encode(), digest_size=8).digest()[0] < TEST_SHARE


def task(split: str, seed: int, index: int, rl_share: float) -> Task:
    """Function number `index`. `rl_share` (of `train` only): how much comes from the families RL has to learn."""
    if split == "train":
        return versions(split, seed, index, rl_share)[0]
    return versions(split, seed, index // 2, rl_share)[index % 2]


def versions(split: str, seed: int, number: int, rl_share: float) -> list[Task]:
    """Both versions of pair `number`."""
    rng = random.Random(f"weaknesses/{VERSION}/{split}/{seed}/{number}")
    if split == "train":
        name = rng.choice(RL if rng.random() < rl_share else SFT)
    else:
        name = TEST_SPLITS[split][number % len(TEST_SPLITS[split])]
    pair = make_pair(rng, name, held_out=split != "train")
    return pair_tasks(
        *(f"generated-classify-{split}-{seed}-{number}", "generated", split, pair.before, pair.after),
        *(pair.family.language, [pair.family.cwe]),
        family=name,
        provenance={"generator": VERSION},
    )


def warmstart_pairs(
    seed: int, first: int, count: int, random_share: float
) -> Iterator[tuple[Pair, random.Random, bool]]:
    """(pair, what else is drawn for it, whether its label is to be shown) to demonstrate: SFT's families with their
    label, RL's without."""
    for index in range(first, first + count):
        rng = random.Random(f"weaknesses/warmstart/{VERSION}/{seed}/{index}")
        shown = rng.random() >= random_share
        yield make_pair(rng, rng.choice(SFT if shown else RL), held_out=False), rng, shown


def make_pair(rng: random.Random, name: str, held_out: bool) -> Pair:
    family = FAMILIES[name]
    while True:
        words = Words.draw(rng)
        body = family.draw(words, rng)
        filling = [_filler(family.language, words, rng) for _ in range(rng.randint(LEAST_FILLERS, MOST_FILLERS))]
        filling = list(dict.fromkeys(filling))
        places = [rng.random() < 0.5 for _ in filling]  # at the beginning, or right before the last line
        pair = Pair(
            family,
            *(
                _written(family.language, words, body.parameters, _filled(lines, filling, places))
                for lines in (body.before, body.after)
            ),
        )
        if name in UNSEEN or pair.held_out == held_out:
            return pair


def _filler(language: str, words: Words, rng: random.Random) -> str:
    room = in_python if language == "python" else in_c
    line = rng.choice(room.ALIKE if rng.random() < ALIKE_SHARE else room.FILLERS)
    return line.format(other=words.other, size=words.size)


def _filled(lines: list[str], filling: list[str], places: list[bool]) -> list[str]:
    first = [line for line, early in zip(filling, places, strict=True) if early]
    last = [line for line, early in zip(filling, places, strict=True) if not early]
    return [*first, *lines[:-1], *last, lines[-1]]


def _written(language: str, words: Words, parameters: str, lines: list[str]) -> str:
    if language == "python":
        body = [line + (" return None" if line.endswith(":") else "") for line in lines]
        return "\n".join([f"def {words.function}({parameters}):", *(f"    {line}" for line in body)]) + "\n"
    return "\n".join([f"int {words.function}({parameters}) {{", *(f"    {line}" for line in lines), "}"]) + "\n"
