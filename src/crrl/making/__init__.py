"""Bugs from any repository: `crrl tasks make` puts them in, `crrl tasks mine` takes those that its history has.

- `command.py`: runs either; progress, and what it came to.
- `make.py`: the suite, under coverage (`survey.py`, `survey_plugin.py`), mutants where it reaches
  (`real_mutation.py`), an issue from the call that goes wrong (`tracing.py`, `issue.py`, `steps.py`), tests kept back
  (`hiding.py`).
- `trees/`: the same for Go, JavaScript, TypeScript and Rust, on their syntax trees.
- `mine.py`: fix commits that came with tests.
- `snapshot.py`: the repository's tree, kept beside the task file.
"""
