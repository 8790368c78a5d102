"""A run: where all parts are put together.

`main` is the main path of `crrl train` and `crrl eval`; `run.Run` holds the parts of a run in progress.
"""
