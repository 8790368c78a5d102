"""Generated bugs, as many as you like: small programs with one mutation each, in training and held-out splits.

- `generate.py`: `generate(split, seed, index)`; `families/`: the programs; `cases.py`: their test cases; `bug.py`: a
  program with its mutant, alone in its file or among others.
- `floor.py`: the solve rate of random edits; `records.py`: tasks that the judge has admitted.
"""
