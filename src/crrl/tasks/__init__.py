"""Tasks: bugs to repair, from whatever corpus, as everything downstream sees them (`task.Task`).

- `generator/`: bugs of our own, without end and with held-out splits; `corpora/`: real ones, each corpus a module;
  `making/`: bugs from any repository (`crrl tasks make | mine`).
- `files.py`: task files, one JSON `Task` a line.
- `admission.py`: lets a task in only where its tests fail on the bug and pass on the repair, three times each, and
  measures the lists of tests where a corpus has none.
- `leakage.py`: training tasks that are evaluation tasks under another name.
- `setup/`: what tasks need of the machine: environments, interpreters, toolchains.

To add a corpus, write one file in `corpora/` (its `__init__` says how) and one line there. What was admitted is
written to a task file (`crrl tasks check CORPUS out=FILE`) and trained on as it is.
"""
