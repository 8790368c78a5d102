"""Learning: episodes in, weights out.

`rows.py` says which tokens are trained; `advantages.py` compares the attempts of a group; `source.py` makes
one step's rows out of groups; `trainer.py` takes the step (TRL's losses); `push.py` brings the weights into
the running engine and proves that they arrived; `checkpoint.py` keeps them.

To add an advantage: one function in `advantages.py` and its line in `ADVANTAGES`.
"""
