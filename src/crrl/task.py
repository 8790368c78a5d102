"""`Task`: one bug, from whatever corpus, as everything downstream sees it.

Frozen and serialisable (msgspec): it crosses the process boundary to the rollout worker as it is. Paths in a task are
relative to its workspace and stay in it: a task whose paths do not is refused where it is made (ValueError).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from crrl.label import Label


def _check_paths(name: str, paths: Iterable[str], *, root: bool = False) -> None:
    """`root`: "." may stand for the workspace itself."""
    for path in paths:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        strange = "\0" in path or any(len(part.encode("utf-8", "replace")) > 255 for part in parts)
        if strange or path.startswith("/") or ".." in parts or not (path if root else parts and path[-1] != "/"):
            raise ValueError(f"{name}: {path[:200]!r} is no relative path below the workspace")


@dataclass(frozen=True)
class Source:
    """Where the buggy repository comes from: one of `repo`+`base_commit`, `dir`, or `files`; or an `image` that holds
    it, alone or beside the repository it was built from.

    Args:
        files: relative path -> text: how small tasks carry their repository.
        patches: unified diffs, applied in this order: how a corpus makes its bug out of what is there.
        image: container image with the repository, its dependencies installed, in the folder `workdir`.
        hidden: paths of the image, outside the repository, that only the judge sees: its tests.
    """

    repo: str | None = None
    base_commit: str | None = None
    dir: str | None = None
    files: dict[str, str] | None = None
    patches: list[str] = field(default_factory=list)
    image: str | None = None
    workdir: str = ""
    hidden: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_paths("source.files", self.files or ())


@dataclass(frozen=True)
class Command:
    """One command, run in the workspace root unless `cwd` (relative) says otherwise."""

    argv: list[str]
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        _check_paths("cwd", [self.cwd], root=True)


@dataclass(frozen=True)
class Decoys:
    """Tests whose right answers the judged process cannot know (`rewards/decoys/`), as the known fix calibrated them.

    Args:
        version: of the code that draws them; a record of another one is measured again.
        seed: which assertion of each part is the one that is made wrong.
        parts: what can be made wrong alone: a test, a file of data, or "", all helpers -> the ids that the known fix
            fails then.
        silent: ids of which copies say nothing.
        ends: where there are no parts: tests that fail when they are made to fail at their end.
        beside: right and wrong expectations stand in one run; nothing was to be measured.
        reason: why there are no parts.
    """

    version: str
    seed: int = 0
    parts: dict[str, list[str]] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    beside: bool = False
    reason: str = ""


@dataclass(frozen=True)
class TestPlan:
    """How a repair is judged.

    Args:
        command: what runs the tests; for parser `pytest` the arguments after `python -m pytest`.
        parser: how its output becomes {test id: status}: `pytest` is our own judge's, the others are in
            `rewards/parsers.py`.
        fail_to_pass: ids that fail on the buggy tree and must pass (FAIL_TO_PASS).
        pass_to_pass: ids that pass on the buggy tree and must still pass (PASS_TO_PASS).
        restore: relative path -> text; put back before the tests run (hidden tests included).
        timeout_s: wall limit of one judged run.
        cpu_s: CPU limit of each of its processes; unlike the wall limit, a busy machine does not bring it nearer.
        needs: what the command needs of the machine, by name (`setup/toolchains.py`).
        build: run before the tests, on the patched tree; where one fails, no test has passed.
        report: run after the tests have ended; prints what the parser reads (None: what the command printed).
        test_patch: the corpus's test patch, a unified diff, put on the base before the tests run.
        restore_from: path -> commit of the repository whose version of it is put back; with an image, out of the
            history that is in it.
        protect: further paths that belong to the tests (a folder ends in `/`): a repair's changes are left out.
        baseline: the corpus does not list all tests; admission does: those that pass with the known fix.
        decoys: what admission measured; None: measured when the first patch passes every test.
        label: what is true of the function, of parser `label`: the patch is an answer (`crrl.label`), and nothing runs.
    """

    __test__ = False  # not a pytest class

    command: Command
    parser: str
    fail_to_pass: list[str]
    pass_to_pass: list[str]
    restore: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    cpu_s: int = 600
    needs: list[str] = field(default_factory=list)
    build: list[Command] = field(default_factory=list)
    report: Command | None = None
    test_patch: str = ""
    restore_from: dict[str, str] = field(default_factory=dict)
    protect: list[str] = field(default_factory=list)
    baseline: bool = False
    decoys: Decoys | None = None
    label: Label | None = None

    def __post_init__(self) -> None:
        _check_paths("test.restore", self.restore)
        _check_paths("test.restore_from", self.restore_from)


@dataclass(frozen=True)
class Task:
    """One bug to repair.

    Args:
        solution: a unified diff that repairs it (never shown to an agent), or None.
        tries: how often an agent may try; after each but the last it is shown what the tests printed.
        created_at: when the repair was made, as the corpus says (ISO 8601 where it does).
        provenance: what else the corpus says: version, difficulty, Python version, links.
    """

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
    tries: int = 1
