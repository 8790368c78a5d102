"""Tasks: bugs to repair, from any corpus, in the form that everything downstream uses (`crrl.task.Task`).

- `generator/`: an endless supply of generated bugs, with held-out splits; `corpora/`: real bugs, one module per corpus
  (`crrl.making` makes bugs from any repository).
- `files.py`: task files, one JSON `Task` per line.
- `leakage.py`: training tasks that are evaluation tasks under another name.
- `setup/`: requirements of tasks on the machine: environments, interpreters, toolchains.

To add a corpus, write one file in `corpora/` (its `__init__` says how) and one line there.
`crrl tasks check CORPUS out=FILE` writes the admitted tasks to a task file, and runs train on that file.
"""
