"""Tasks: bugs to repair, from whatever corpus, as everything downstream sees them (`task.Task`).

`generated` makes bugs of our own, without end and with held-out splits; `files` reads task files (one JSON `Task` a
line); `admission` lets a task in only where its tests fail on the bug and pass on the repair, three times each; `floor`
is what random edits would solve.

To add a corpus, write one file here with a function that gives `Task`s: a source (`repo` and `base_commit`, `dir`, or
`files`), the issue, FAIL_TO_PASS and PASS_TO_PASS, and what has to be restored before the tests run. Until it is named
in `learning/curriculum.py` it can be written to a task file (`files.write_tasks`) and trained on as it is.
"""
