"""An issue text for corpora without one: the failing tests and their messages. Never the repair."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 10
MESSAGE_CHARS = 600


def failing_tests(project: str, failures: Sequence[tuple[str, str]], report: str = "") -> str:
    """`failures`: (test, its message or ""). `report`: where the bug was reported."""
    lines = [f"{len(failures)} test{'s' * (len(failures) != 1)} of {project} fail{'s' * (len(failures) == 1)}:", ""]
    for test, message in failures[:SHOWN]:
        lines.append(f"- {test}")
        lines += [f"      {line}" for line in message[:MESSAGE_CHARS].splitlines()[:5]]
    if len(failures) > SHOWN:
        lines.append(f"- and {len(failures) - SHOWN} more")
    if report:
        lines += ["", f"Reported as {report}."]
    return "\n".join(lines) + "\n"
