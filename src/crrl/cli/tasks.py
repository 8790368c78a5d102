"""`crrl tasks`: lists, checks, fetches, splits and makes tasks."""

from __future__ import annotations

from pathlib import Path

from crrl.cli import tasks_make
from crrl.cli.call import Call, print_json, whole_number
from crrl.errors import UsageError, nearest

USAGE = "crrl tasks list|show|check|fetch|split|mix|record|demonstrate [CORPUS] [key=value...] [--json]"
HELP = (
    """
CORPUS is `generated` (default), a task file (.jsonl), or one of the corpora in docs/corpora.md: swe-gym,
swe-bench-verified, defects4j, quixbugs, polyglot..., or a data set on the hub: ORG/NAME, ORG/NAME@REVISION

list    ids, splits, families and dates; with --json whole tasks, one per line
show    one task (ids=ID) in readable form, with the size of its repair but not the repair
check   runs every task's tests three times buggy and three times fixed, and admits a task if they fail buggy and
        pass fixed each time. JSON: {id, status: admitted|flaky|broken|unavailable, empty, fixed,
        reasons, seconds, excluded, decoys, no_decoys, no_marker}
fetch   pulls the images of a corpus's tasks in advance; if you stop it, complete images stay. JSON: {image, how:
        there|fetched, evicted}
split   splits a corpus into train and held-out tasks, without those that are evaluation tasks by id, commit or patch.
        JSON: {id, part: train|held_out|removed, created_at, twin, how, similarity}
mix     puts tasks together to train on: crrl tasks mix generated:60 A.jsonl:40 B.jsonl out=MIXED.jsonl, drawn with
        seed=; generated ones are those of the split `train`. JSON: {out, tasks, of: {name: number}}
demonstrate  writes known fixes as chats, in search/replace blocks, for `crrl sft`: what agent=answer asks, and the fix
        as the answer. Generated tasks: the warm start's families only. JSON: {written, left_out, out}
record  like check, but stores the verdicts on the generated corpus in the package (for developers of crrl)

  path=P       corpora: a file of records (parquet, json, jsonl), or the corpus's own folder layout; default: the hub
  split=S      corpora: only this split            ids=A,B   only these tasks
  mirrors=D    corpora: take repositories from local clones D/OWNER/NAME (for machines without network)
  images=no    list, show, check of SWE-bench and SWE-Gym: use no images, but set up each repository on this machine
               as its own files ask, with packages and a Python of its time (docs/corpora.md)
  times=N      check: runs of each kind (3)        out=FILE  check: the admitted tasks, with measured lists;
               rerunning a check resumes from FILE's .check.work
  max_disk=N   fetch: limit in GB on fetched images; the least recently used are removed first
  images=E     fetch: docker, podman, apptainer (SIF files), or auto
  against=C:P,D:Q  split: evaluation corpora, and where to read them
  held_out=N   split: number of tasks to hold out (0)        out=FOLDER  split: train.jsonl, held_out.jsonl
  out=FILE.jsonl  demonstrate: the chats               prompts=P  demonstrate: agent.prompts (repair-file)
  count=N      generated corpus: tasks per split (10)      ask=implement  generated corpus: functions without body
  seed=N       generated corpus, split, mix (0)    functions=N   generated corpus: so many functions in a file (1)
  sandbox.state_dir=D  check, fetch, make, mine, demonstrate: caches, toolchains and interpreters, as runs have it
"""
    + tasks_make.HELP
)
OF_CORPORA = ("path", "split", "ids", "mirrors", "images")
KEYS = {
    "list": OF_CORPORA,
    "show": OF_CORPORA,
    "check": (*OF_CORPORA, "times", "out"),
    "fetch": (*OF_CORPORA, "max_disk"),
    "split": (*OF_CORPORA[:-1], "against", "held_out", "out", "seed"),  # a set-up is settled by check
    "demonstrate": (*OF_CORPORA, "out", "prompts"),
    "mix": ("seed", "functions", "out"),
    "record": (),
    **tasks_make.KEYS,
}


def run(call: Call) -> int:
    if call.arguments[:1] == ["mix"]:
        return _mix(call)
    action, corpus = [*call.only("ACTION", "CORPUS", optional=1), "generated"][:2]
    if action not in KEYS:
        raise UsageError(f"crrl tasks cannot '{action}'.", nearest(action, KEYS))
    if action in tasks_make.KEYS:
        return tasks_make.run(call, action, call.only("ACTION", "REPO")[1])
    state_dir = call.state_dir() if action in ("check", "record", "fetch", "demonstrate") else Path()
    values = _values(call, action, corpus)
    call.no_settings()
    from crrl.tasks import command

    wanted = command.Wanted(
        corpus,
        count=whole_number(values, "count", 10),
        seed=whole_number(values, "seed", 0),
        ask=_ask(values.get("ask", "repair")),
        functions=_functions(values),
        path=_path(values, "path"),
        split=values.get("split", ""),
        ids=[id for id in values.get("ids", "").split(",") if id],
        mirrors=_path(values, "mirrors"),
        images=action == "fetch" or _images(values.get("images")),
    )
    out = _path(values, "out")
    if action == "demonstrate":
        if out is None:
            raise UsageError("Where do the chats go?", "Write out=FILE.jsonl.")
        from crrl.warmstart.chats import demonstrate

        prompts = values.get("prompts", "repair-file")
        return demonstrate(wanted, prompts=prompts, out=out, state_dir=state_dir, json=call.json)
    if action == "list":
        return command.list_tasks(wanted, json=call.json)
    if action == "show":
        return command.show(wanted, json=call.json)
    if action == "fetch":
        max_gb = whole_number(values, "max_disk", 0) or None
        engine = values.get("images", "auto")
        return command.fetch(wanted, engine=engine, max_gb=max_gb, state_dir=state_dir, json=call.json)
    if action == "split":
        against = [_other(word) for word in values.get("against", "").split(",") if word]
        others = [command.Wanted(name, path=path) for name, path in against]
        return command.split(wanted, others, held_out=whole_number(values, "held_out", 0), out=out, json=call.json)
    times = whole_number(values, "times", 3, least=1)
    from crrl.admission.check import check

    return check(wanted, times=times, out=out, state_dir=state_dir, json=call.json, keep=action == "record")


def _values(call: Call, action: str, corpus: str) -> dict[str, str]:
    """The action's own settings, as written. A setting that does not apply to this corpus is an error."""
    own = [key for key in KEYS[action] if key not in OF_CORPORA]
    of_corpora = [key for key in KEYS[action] if key in OF_CORPORA]
    if corpus == "generated":
        own += ["count", "seed", *(["ask", "functions"] if action != "record" else [])]
    elif corpus.endswith(".jsonl"):
        own += ["ids", "images"] if action == "fetch" else ["ids"]
    else:
        own += of_corpora
    found = {key: value for key in own if (value := call.take(key)) is not None}
    ignored = [word.partition("=")[0] for word in call.settings]
    for key in ignored:
        if key in ("count", "seed", "ask", "functions", *OF_CORPORA):
            remedy = "See: crrl tasks --help"
            if action == "split" and key == "images":
                remedy = "Set the tasks up with `crrl tasks check ... images=no out=FILE.jsonl`, and split FILE.jsonl."
            raise UsageError(f"crrl tasks {action} {corpus} has no use for {key}=.", remedy)
    return found


def _ask(value: str) -> str:
    from crrl.conf.checks import choices

    if value not in choices("corpus.ask"):
        raise UsageError(f"ask={value} does not exist.", nearest(value, choices("corpus.ask")))
    return value


def _functions(values: dict[str, str]) -> int:
    from crrl.conf.checks import MOST_FUNCTIONS

    number = whole_number(values, "functions", 1, least=1)
    if "functions" in values and values.get("ask") == "classify":
        raise UsageError("functions= would be ignored: a function to classify stands alone.", "Leave it out.")
    if number > MOST_FUNCTIONS:
        raise UsageError(f"functions={number} is too many.", f"Write functions={MOST_FUNCTIONS} or fewer.")
    return number


def _mix(call: Call) -> int:
    values = {key: value for key in KEYS["mix"] if (value := call.take(key)) is not None}
    call.no_settings()
    from crrl.tasks.mix import GENERATED, Part, mix

    parts = [Part.of(word) for word in call.arguments[1:]]
    if not parts:
        raise UsageError("What is to be mixed?", "Write crrl tasks mix generated:60 A.jsonl:40 B.jsonl out=MIXED.jsonl")
    out = _path(values, "out")
    if out is None or out.suffix != ".jsonl":
        raise UsageError("Where does the mixture go?", "Write out=FILE.jsonl.")
    if "functions" in values and all(part.name != GENERATED for part in parts):
        raise UsageError("functions= is for generated tasks.", "Leave it out, or add generated:60.")
    seed = whole_number(values, "seed", 0)
    counts, sound = mix(parts, seed=seed, functions=_functions(values), out=out)
    if call.json:
        print_json({"out": str(out), "tasks": sum(counts.values()), "of": counts})
    else:
        print(f"{sum(counts.values())} tasks in {out}: " + ", ".join(f"{n} of {name}" for name, n in counts.items()))
        print(f"Next: crrl train RECIPE corpus.name={out} corpus.held_out=N")
    return 0 if sound else 1


def _images(value: str | None) -> bool:
    if value not in (None, "no"):
        raise UsageError(f"images={value} is not `no`.", "Leave it out to use the images that tasks have.")
    return value is None


def _path(values: dict[str, str], key: str) -> Path | None:
    return Path(values[key]) if values.get(key) else None


def _other(word: str) -> tuple[str, Path | None]:
    """`corpus:path`, `corpus` (from the hub), or a task file."""
    name, found, path = word.partition(":")
    return name, Path(path) if found else None
