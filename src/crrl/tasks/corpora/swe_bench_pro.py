"""SWE-bench Pro (Deng et al. 2025, arXiv:2509.16941): larger changes, eleven repositories, four languages.

Two halves: the hub's rows have the issue and the fix; the benchmark's repository has `run_scripts/<id>/` with the
script that runs the tests, the parser of its output, and `instance_info.txt`. From a folder with rows and run_scripts
both are read; run_scripts alone gives tasks without issue and fix, which can be listed and kept apart, not trained
on.
Traps: the lists of tests are lower-case keys with Python literals; an image holds the repository in /app, and the
tests in its history, at the commit of the repair: the last line of `before_repo_set_cmd` tells which files.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.corpora.corpus import Corpus, Found
from crrl.tasks.corpora.rows import Row, diff, failing, names, read_files, read_hub, text
from crrl.tasks.corpora.swe_rows import language_of
from crrl.tasks.diffs import touched
from crrl.tasks.files import Problem

SPLITS = ("test",)
HUB = "ScaleAI/SWE-bench_Pro"
PARSER = "swe-bench-pro"
SCRIPT = """bash .crrl/run_script.sh %s > .crrl/stdout.log 2> .crrl/stderr.log
python .crrl/parser.py .crrl/stdout.log .crrl/stderr.log .crrl/output.json"""
LABELS = {
    "Instance ID": "instance_id",
    "Repository": "repo",
    "Base Commit": "base_commit",
    "Test Files": "selected_test_files_to_run",
    "FAIL_TO_PASS": "fail_to_pass",
    "PASS_TO_PASS": "pass_to_pass",
}


def read(path: Path) -> Found:
    scripts = path / "run_scripts"
    if not scripts.is_dir():
        yield from read_files(path, lambda row, split: convert(row, split), SPLITS)
        return
    tables = [p for p in sorted(path.glob("*")) + sorted(path.glob("data/*")) if p.suffix in (".parquet", ".jsonl")]
    for table in tables:
        yield from read_files(table, lambda row, split: convert(row, split, scripts), SPLITS)
    if not tables:
        yield from _infos(scripts)


def _infos(scripts: Path) -> Iterator[Task | Problem]:
    for file in sorted(scripts.glob("*/instance_info.txt")):
        row: Row = {}
        for line in file.read_text(errors="replace").splitlines():
            label, found, value = line.partition(": ")
            if found and label in LABELS:
                row[LABELS[label]] = value
        try:
            yield convert(row, SPLITS[0], scripts)
        except ValueError as error:
            yield Problem(file, 0, str(error))


def convert(row: Row, split: str, scripts: Path | None = None) -> Task:
    id, repo = text(row, "instance_id"), text(row, "repo")
    solution, test_patch = diff(row, "patch", ""), diff(row, "test_patch", "")
    files = [name for key in ("selected_test_files_to_run",) if row.get(key) for name in names(row, key)]
    asked = [text(row, key, "") for key in ("problem_statement", "requirements", "interface")]
    plan = TestPlan(
        command=Command(["bash", "-c", SCRIPT % shlex.quote(",".join(files))]),
        parser=PARSER,
        fail_to_pass=failing(row, "fail_to_pass"),
        pass_to_pass=names(row, "pass_to_pass"),
        restore=_scripts(scripts / id) if scripts is not None else {},
        restore_from=_restored(row),
        timeout_s=3600.0,
        report=Command(["cat", ".crrl/output.json"]),
        protect=touched(test_patch) or [name for name in files if "/" in name],
    )
    return Task(
        id=id,
        corpus="swe-bench-pro",
        split=split,
        language=text(row, "repo_language", "") or language_of(touched(solution) or files),
        family=repo,
        source=Source(
            repo=f"https://github.com/{repo}",
            base_commit=text(row, "base_commit"),
            image=f"jefzda/sweap-images:{text(row, 'dockerhub_tag', _tag(id, repo))}",
            workdir="/app",
        ),
        issue="\n\n".join(part for part in asked if part.strip()),
        test=plan,
        solution=solution or None,
        created_at=str(row.get("created_at") or ""),
    )


def _restored(row: Row) -> dict[str, str]:
    """Test file -> commit of the repair, which has it. Raises ValueError.

    The other lines set the repository to its base, where a box has it anyway.
    """
    lines = text(row, "before_repo_set_cmd", "").strip().splitlines()
    words = shlex.split(lines[-1]) if lines else []
    if lines and (words[:2] != ["git", "checkout"] or words[3:4] != ["--"] or len(words) < 5):
        raise ValueError(f"before_repo_set_cmd: not `git checkout COMMIT -- FILES`: {lines[-1][:200]}")
    return dict.fromkeys(words[4:], words[2]) if lines else {}


def _scripts(folder: Path) -> dict[str, str]:
    wanted = [folder / name for name in ("run_script.sh", "parser.py")]
    return {f".crrl/{file.name}": file.read_text(errors="replace") for file in wanted if file.is_file()}


def _tag(id: str, repo: str) -> str:
    """How the images are tagged, where a record does not say: Docker allows 128 characters."""
    name = repo.lower().replace("/", ".", 1)
    return f"{name}-{re.sub('^instance_', '', id)}"[:128]


CORPUS = Corpus(
    name="swe-bench-pro",
    splits=SPLITS,
    read=read,
    home="https://github.com/scaleapi/SWE-bench_Pro-os",
    hub=HUB,
    fetch=lambda hub, split: read_hub(hub, lambda row, split: convert(row, split), split),
)
