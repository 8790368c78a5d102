"""Names that the parts of a run share."""

INTERRUPTED = 130
"""Exit code of whoever was interrupted."""
TASKS = "tasks.jsonl"
"""An evaluation's tasks, in its folder."""
META = "evaluation"
"""A journal's name for what an evaluation evaluates."""
