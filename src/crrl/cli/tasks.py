"""`crrl tasks`: corpora of bugs: what is in them, are they sound, what may be trained on."""

from __future__ import annotations

from pathlib import Path

from crrl.cli import tasks_make
from crrl.cli.call import Call, whole_number
from crrl.errors import UsageError, nearest

USAGE = "crrl tasks list|show|check|fetch|split|record [CORPUS] [key=value...] [--json]"
HELP = (
    """
CORPUS is `generated` (default), a task file (.jsonl), or one of the corpora in docs/corpora.md: swe-gym,
swe-bench-verified, defects4j, quixbugs, polyglot...

list    ids, splits, families and dates; with --json whole tasks, one a line
show    one task (ids=ID) as a person reads it; of the repair only its size
check   runs every task's tests three times buggy and three times fixed; a task is admitted if they fail
        buggy and pass fixed each time. JSON: {id, status: admitted|flaky|broken|unavailable, empty, fixed,
        reasons, seconds, excluded, decoys, no_decoys}
fetch   pulls the images of a corpus's tasks ahead; what a stopped one brought stays. JSON: {image, how:
        there|fetched, evicted}
split   parts a corpus into train and held out; what is an evaluation task by id, commit or patch is removed.
        JSON: {id, part: train|held_out|removed, created_at, twin, how, similarity}
record  as check, and keeps the verdicts on the generated corpus with the package (for developers of crrl)

  path=P       of a corpus: a file of records (parquet, json, jsonl), or its own folder layout; without it, the hub
  split=S      of a corpus: this split only        ids=A,B   these tasks only
  mirrors=D    of a corpus: take repositories from local clones D/OWNER/NAME (machines without network)
  images=no    of list, show and check, for SWE-bench and SWE-Gym: in place of images, each repository is set up here
               as its own files ask for, with packages and a Python of its time (docs/corpora.md)
  times=N      of check (3)                        out=FILE  of check: the admitted tasks, with measured
               lists; a check that was stopped goes on from FILE's .check.work
  max_disk=N   of fetch: GB that fetched images may take; the least recently used go first
  images=E     of fetch: docker, podman, apptainer (SIF files), or auto
  against=C:P,D:Q  of split: evaluation corpora and where they are read from
  held_out=N   of split: tasks kept for evaluation (0)       out=FOLDER  of split: train.jsonl, held_out.jsonl
  count=N      of the generated corpus, this many per split (10)
  seed=N       of the generated corpus, and of split (0)
"""
    + tasks_make.HELP
)
OF_CORPORA = ("path", "split", "ids", "mirrors", "images")
KEYS = {
    "list": OF_CORPORA,
    "show": OF_CORPORA,
    "check": (*OF_CORPORA, "times", "out"),
    "fetch": (*OF_CORPORA, "max_disk"),
    "split": (*OF_CORPORA, "against", "held_out", "out", "seed"),
    "record": (),
    **tasks_make.KEYS,
}


def run(call: Call) -> int:
    action, corpus = [*call.only("ACTION", "CORPUS", optional=1), "generated"][:2]
    if action not in KEYS:
        raise UsageError(f"crrl tasks cannot '{action}'.", nearest(action, KEYS))
    if action in tasks_make.KEYS:
        return tasks_make.run(call, action, call.only("ACTION", "REPO")[1])
    values = _values(call, action, corpus)
    call.no_settings()
    from crrl.tasks import command

    wanted = command.Wanted(
        corpus,
        count=whole_number(values, "count", 10),
        seed=whole_number(values, "seed", 0),
        path=_path(values, "path"),
        split=values.get("split", ""),
        ids=[id for id in values.get("ids", "").split(",") if id],
        mirrors=_path(values, "mirrors"),
        images=action == "fetch" or _images(values.get("images")),
    )
    out = _path(values, "out")
    if action == "list":
        return command.list_tasks(wanted, json=call.json)
    if action == "show":
        return command.show(wanted, json=call.json)
    if action == "fetch":
        max_gb = whole_number(values, "max_disk", 0) or None
        return command.fetch(wanted, engine=values.get("images", "auto"), max_gb=max_gb, json=call.json)
    if action == "split":
        against = [_other(word) for word in values.get("against", "").split(",") if word]
        others = [command.Wanted(name, path=path) for name, path in against]
        return command.split(wanted, others, held_out=whole_number(values, "held_out", 0), out=out, json=call.json)
    times = whole_number(values, "times", 3, least=1)
    from crrl.admission.check import check

    return check(wanted, times=times, out=out, json=call.json, keep=action == "record")


def _values(call: Call, action: str, corpus: str) -> dict[str, str]:
    """The action's own settings, as written. A setting that this corpus has no use for is an error."""
    own = [key for key in KEYS[action] if key not in OF_CORPORA]
    if corpus == "generated":
        own += ["count", "seed"]
    elif corpus.endswith(".jsonl"):
        own += ["ids", "images"] if action == "fetch" else ["ids"]
    else:
        own += OF_CORPORA if action != "record" else ()
    found = {key: value for key in own if (value := call.take(key)) is not None}
    ignored = [word.partition("=")[0] for word in call.settings]
    for key in ignored:
        if key in ("count", "seed", *OF_CORPORA):
            raise UsageError(f"crrl tasks {action} {corpus} has no use for {key}=.", "See: crrl tasks --help")
    return found


def _images(value: str | None) -> bool:
    if value not in (None, "no"):
        raise UsageError(f"images={value} is not `no`.", "Leave it out: images are used where a task has one.")
    return value is None


def _path(values: dict[str, str], key: str) -> Path | None:
    return Path(values[key]) if values.get(key) else None


def _other(word: str) -> tuple[str, Path | None]:
    """`corpus:path`, `corpus` (from the hub), or a task file."""
    name, found, path = word.partition(":")
    return name, Path(path) if found else None
