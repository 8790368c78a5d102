"""`Task`: one bug, from whatever corpus, as everything downstream sees it.

Frozen and serialisable (msgspec): it crosses the process boundary to the rollout worker as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """Where the buggy repository comes from: exactly one of `repo`+`base_commit`, `dir`, or `files`.

    `files` maps relative paths to text: how generated tasks carry their (small) repository.
    """

    repo: str | None = None
    base_commit: str | None = None
    dir: str | None = None
    files: dict[str, str] | None = None


@dataclass(frozen=True)
class Command:
    """One command, run in the workspace root unless `cwd` (relative) says otherwise."""

    argv: list[str]
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0


@dataclass(frozen=True)
class TestPlan:
    """How a repair is judged.

    Args:
        command: what runs the tests; for parser `pytest` the arguments after `python -m pytest`.
        parser: how its output becomes {test id: status}: `pytest` is our own judge's.
        fail_to_pass: ids that fail on the buggy tree and must pass (FAIL_TO_PASS).
        pass_to_pass: ids that pass on the buggy tree and must still pass (PASS_TO_PASS).
        restore: relative path -> text; put back before the tests run (hidden tests included).
        timeout_s: wall limit of one judged run.
        cpu_s: CPU limit of each of its processes; unlike the wall limit, a busy machine does not bring it nearer.
    """

    __test__ = False  # not a pytest class

    command: Command
    parser: str
    fail_to_pass: list[str]
    pass_to_pass: list[str]
    restore: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    cpu_s: int = 600


@dataclass(frozen=True)
class Task:
    """One bug to repair. `solution` is a unified diff that repairs it (never shown to an agent), or None."""

    id: str
    corpus: str
    split: str
    language: str
    family: str
    source: Source
    issue: str
    test: TestPlan
    setup: list[Command] = field(default_factory=list)
    solution: str | None = None
    created_at: str = ""
    provenance: dict[str, str] = field(default_factory=dict)
