"""Admission: is a task sound? `admission.admit` judges it as it is and with its known fix, some times over; `check` is
`crrl tasks check`; `work_file` keeps its finished tasks, so that rerunning the command resumes where it stopped."""
