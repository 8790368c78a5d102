"""Measurements of this machine, next to comparable tools: one file for each word of `crrl bench`.

`cli/bench.py` lists them. A file has `bench() -> dataclass with lines() -> list[str]`."""
