"""Evaluation: the attempts of a benchmark, its results, and their uncertainty.

`benchmark` computes rates and paired differences from episodes; `statistics` has the formulas, each with its source. To
add a metric, extend `benchmark.SplitResult.of`; to add an interval or a test, write one function in `statistics`.
"""
