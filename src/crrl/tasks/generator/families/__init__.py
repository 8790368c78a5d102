"""Families of small programs, each a function that draws one program from its family.

A family returns a `Program`: what the function returns, said in one line (it becomes the docstring after
"Return "), its parameters, its body, and the kinds of arguments it takes. To add a family: one function with
`@family` in `numbers.py`, `lists.py` or `texts.py`.

The warm start sees repairs for `SFT` families, and only random edits for `RL` families; `UNSEEN` families appear in no
training data of any kind.
"""

from __future__ import annotations

from crrl.tasks.generator.families import lists, numbers, texts  # noqa: F401  (they register themselves)
from crrl.tasks.generator.families.program import FAMILIES, Program

UNSEEN = ["last_if", "comp_reduce", "count_texts", "dict_map"]
RL = [
    "product_if",
    "filter_map",
    "none_if",
    "while_sum_if",
    "range_list",
    "branch_assign",
    "stride_if",
    "sort_if",
]

SFT = [name for name in FAMILIES if name not in UNSEEN and name not in RL]

__all__ = ["FAMILIES", "RL", "SFT", "UNSEEN", "Program"]
