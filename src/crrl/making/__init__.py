"""Tasks from any repository: `crrl tasks make` puts bugs in, `crrl tasks mine` takes those that its history has, `crrl
tasks spec` asks for functions that its tests cover.

- `command.py`: runs either; progress, and what it came to.
- `make.py`: the suite, under coverage (`survey.py`, `survey_plugin.py`), mutants where it reaches
  (`real_mutation.py`), an issue from the call that goes wrong (`tracing.py`, `issue.py`, `steps.py`), tests kept back
  (`hiding.py`).
- `trees/`: the same for Go, JavaScript, TypeScript and Rust, on their syntax trees.
- `mine.py`: fix commits that came with tests.
- `spec.py`: functions without their bodies (`spec_mask.py`), with what a specification has to say (`spec_text.py`),
  where else a body could be read (`spec_elsewhere.py`), licences (`spec_licence.py`).
- `sdist.py`, `snapshot.py`: an archive unpacked; the repository's tree, kept beside the task file.
"""
