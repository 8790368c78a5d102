"""Tasks: bugs to repair, from whatever corpus, as everything downstream sees them (`crrl.task.Task`).

- `generator/`: bugs of our own, without end and with held-out splits; `corpora/`: real ones, each corpus a module
  (bugs from any repository are the work of `crrl.making`).
- `files.py`: task files, one JSON `Task` a line.
- `leakage.py`: training tasks that are evaluation tasks under another name.
- `setup/`: what tasks need of the machine: environments, interpreters, toolchains.

To add a corpus, write one file in `corpora/` (its `__init__` says how) and one line there. What was admitted is
written to a task file (`crrl tasks check CORPUS out=FILE`) and trained on as it is.
"""
