"""A run, where the parts are put together.

`main` is the main path of `crrl train` and `crrl eval`; `run.Run` holds what a run needs while it goes on.
"""
