"""`crrl VERB [ARG...] [key=value...] [--json] [--dry-run]`. One file per verb: `HELP`, `USAGE`, `run(call)
-> int`.

A new verb is one such file and one line in `main.VERBS`. Verbs import what is heavy inside `run`: help,
completion and errors answer in well under half a second.
"""
