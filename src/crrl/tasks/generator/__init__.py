"""Bugs of our own, without end: small programs with one mutation each, in training and held-out splits.

- `generate.py`: `generate(split, seed, index)`; `families/`: the programs; `cases.py`: their test cases.
- `floor.py`: what random edits would solve; `records.py`: tasks that the judge has admitted.
"""
