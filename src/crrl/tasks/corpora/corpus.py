"""The interface of a corpus: a name, its splits, and where to read its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from crrl.errors import CrrlError, UsageError, nearest
from crrl.task import Task
from crrl.tasks.corpora.rows import Convert, read_files, read_hub
from crrl.tasks.files import Problem

Found = Iterator[Task | Problem]


@dataclass(frozen=True)
class Corpus:
    """A corpus of bugs.

    Args:
        splits: the corpus's own names; the first is the default.
        read: its tasks from a path (a file of records, or the corpus's own layout), in order; a malformed one becomes
            a Problem in its place.
        hub: id of the data set on the hub, "" if none.
        fetch: (hub id, split) -> its tasks; None if you have to clone it.
        home: where to get it.
        from_documentation: written without seeing a real record.
        imageless: the same tasks, set up on this machine instead of images; None if unknown or not needed.
    """

    name: str
    splits: tuple[str, ...]
    read: Callable[[Path], Found]
    home: str
    hub: str = ""
    fetch: Callable[[str, str], Found] | None = None
    from_documentation: bool = False
    imageless: Corpus | None = None


@dataclass(frozen=True)
class Loaded:
    """`problems`: the records left out, and why."""

    tasks: list[Task]
    problems: list[Problem] = field(default_factory=list)


def of_rows(
    name: str,
    hub: str,
    splits: tuple[str, ...],
    convert: Convert,
    *,
    revision: str | None = None,
    from_documentation: bool = False,
    imageless: Convert | None = None,
) -> Corpus:
    """A corpus whose tasks are the rows of a table. `revision`: of the hub's, None: the newest; `imageless`: converts
    them to tasks without image."""
    return Corpus(
        name=name,
        splits=splits,
        read=partial(read_files, convert=convert, splits=splits),
        home=f"https://huggingface.co/datasets/{hub}",
        hub=hub,
        fetch=lambda hub, split: read_hub(hub, convert, split, revision),
        from_documentation=from_documentation,
        imageless=of_rows(name, hub, splits, imageless, revision=revision) if imageless is not None else None,
    )


def load(corpus: Corpus, path: Path | None = None, *, split: str = "", ids: Sequence[str] = ()) -> Loaded:
    """Its tasks from `path`, or from the hub. `split`, `ids`: these only ("" and (): all that is there).

    Raises:
        UsageError: there is no such split or id. CrrlError: nothing usable, or nothing to read from.
    """
    if split and split not in corpus.splits:
        raise UsageError(f"{corpus.name} has no split {split}.", nearest(split, corpus.splits))
    if path is None and corpus.fetch is None:
        raise CrrlError(f"{corpus.name} is not on the hub.", f"Clone {corpus.home}, and write path=FOLDER.")
    if path is not None and not path.exists():
        raise CrrlError(f"path={path}: there is no such file or folder.", f"{corpus.name} is at {corpus.home}.")
    if path is not None:
        found = corpus.read(path)
    else:
        assert corpus.fetch is not None
        found = corpus.fetch(corpus.hub, split or corpus.splits[0])
    return _select(corpus, _collect(found), split, ids, path or Path(corpus.hub))


def _collect(found: Iterable[Task | Problem]) -> Loaded:
    tasks: dict[str, Task] = {}
    problems = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        elif item.id not in tasks:
            tasks[item.id] = item
        elif item != tasks[item.id]:
            problems.append(Problem(Path(item.provenance.get("file", item.corpus)), 0, f"a second task {item.id}"))
    return Loaded(list(tasks.values()), problems)


def _select(corpus: Corpus, loaded: Loaded, split: str, ids: Sequence[str], where: Path) -> Loaded:
    tasks = [task for task in loaded.tasks if split in ("", task.split)]
    known = {task.id for task in tasks}
    if unknown := [id for id in ids if id not in known]:
        broken = [problem for problem in loaded.problems if unknown[0] in problem.message]
        hint = str(broken[0]) if broken else nearest(unknown[0], known) if len(known) < 3000 else ""
        raise UsageError(f"{corpus.name} has no task {unknown[0]} in {where}.", hint)
    if not tasks:
        first = f" {loaded.problems[0]}" if loaded.problems else ""
        raise CrrlError(f"{where} has no usable task of {corpus.name}.{first}", f"The corpus is at {corpus.home}.")
    return Loaded([task for task in tasks if not ids or task.id in ids], loaded.problems)
