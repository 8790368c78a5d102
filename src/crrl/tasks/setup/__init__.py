"""What tasks without an image need on this machine besides their repository.

- `environments.py`: a repository's packages, installed once (`Task.setup`), cached, mounted read-only in every box.
- `project.py`: the set-up that a Python project's own files ask for, with packages as of a date.
- `interpreters.py`: Python versions; `toolchains.py`: compilers and test runners, by name (`TestPlan.needs`).
- `own_tools.py`: the corpora's own tools.
"""
