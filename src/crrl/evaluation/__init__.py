"""Evaluation: which attempts make a benchmark, what their episodes amount to, and how sure one can be.

`benchmark` assembles rates and paired differences from episodes; `statistics` holds the formulas, each with
its source. A new metric is a function of a list of episodes in `benchmark.SplitResult.of`; a new interval or
test is one function in `statistics`.
"""
