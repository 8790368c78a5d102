"""`crrl clean`: what the caches hold, and clearing them by kind, age and size."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError, nearest

if TYPE_CHECKING:
    from crrl.sandbox.cache import Cache, Entry, Removed

USAGE = "crrl clean [KIND...] [older=30d] [max_gb=20] [sandbox.state_dir=FOLDER] [--dry-run] [--json]"
HELP = """
Without arguments it only lists the caches. Nothing that a running process uses is ever removed.

  crrl clean older=30d          what was last used more than 30 days ago (also h, w)
  crrl clean max_gb=20          the least recently used, until 20 GB are left
  crrl clean workspaces         all of one kind, or of several; with older= or max_gb=, only so much of it
  crrl clean max_gb=20 --dry-run          the same, without removing anything

KIND is one of these. Runs make them again when they next need them:
  workspaces     checkouts of tasks, ready for boxes
  environments   what a task's set-up built: its virtual environment, its jars
  checkouts      what a corpus's own tool checked out (Defects4J)
  images         container images that `crrl tasks fetch` pulled; never those that were there before
  tools          this package's own programs for boxes and the judge
  leftovers      of killed processes
Somebody installed these, so they are removed only when you name them:
  toolchains, interpreters, agents, engines (vLLM's environment)

`sandbox.cache_gb=20` in a recipe keeps the caches below 20 GB: each run removes what is too much when it starts.
JSON: {state_dir, kinds: {KIND: {entries, bytes, in_use, oldest, newest}}, removed, freed_bytes, kept: [{kind, name,
reason}], notes}; times in Unix seconds.
"""
UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def run(call: Call) -> int:
    from crrl.sandbox import cache

    older, max_gb = call.take("older"), call.take("max_gb")
    state_dir = call.state_dir()
    call.no_settings()
    for kind in call.arguments:
        if kind not in cache.KINDS:
            raise UsageError(f"crrl clean knows no '{kind}'.", nearest(kind, cache.KINDS))
    kinds = tuple(dict.fromkeys(call.arguments)) or cache.MADE_AGAIN
    before = None if older is None else time.time() - _seconds(older)
    at_most = None if max_gb is None else int(_number("max_gb", max_gb) * 1e9)

    wanted = bool(call.arguments) or before is not None or at_most is not None
    found = cache.look(state_dir, kinds if wanted else cache.KINDS)
    done = cache.Removed([], 0, [])
    if wanted:
        done = cache.choose(found, kinds, before=before, at_most=at_most)
        if not call.dry_run:
            done = cache.remove(state_dir, done)
            found = cache.look(state_dir, kinds)
    if call.json:
        print_json(_as_json(state_dir, found, done))
    else:
        _show(state_dir, found, done, wanted, call.dry_run)
    return 1 if any(reason not in cache.EXPECTED for _, reason in done.kept) else 0


def _seconds(text: str) -> float:
    if (match := re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)) is None:
        raise UsageError(f"older={text} is no age.", "Write a number with h, d or w: older=30d.")
    return float(match[1]) * UNITS[match[2]]


def _number(key: str, text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise UsageError(f"{key}={text} is not a number of at least 0.", f"Write e.g. {key}=20.")
    return float(text)


def _as_json(state_dir: Path, found: Cache, done: Removed) -> dict[str, Any]:
    def brief(entry: Entry) -> dict[str, Any]:
        return {"kind": entry.kind, "name": entry.name, "bytes": entry.size, "used": entry.used}

    return {
        "state_dir": str(state_dir),
        "kinds": {total.kind: {k: v for k, v in asdict(total).items() if k != "kind"} for total in found.totals()},
        "removed": [brief(entry) for entry in done.entries],
        "freed_bytes": done.freed,
        "kept": [{"kind": entry.kind, "name": entry.name, "reason": reason} for entry, reason in done.kept],
        "notes": found.notes,
    }


def _show(state_dir: Path, found: Cache, done: Removed, wanted: bool, dry_run: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from crrl.sandbox import cache

    console = Console(highlight=False)
    if not wanted:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("kind", "entries", "size", "in use", "oldest use", "last use"):
            table.add_column(name, justify="left" if name == "kind" else "right")
        for total in found.totals():
            ages = (_ago(total.oldest), _ago(total.newest))
            table.add_row(total.kind, str(total.entries), cache.in_words(total.bytes), str(total.in_use), *ages)
        console.print(f"{state_dir}\n")
        console.print(table)
        console.print(f"\n{cache.in_words(found.size())} in all. To clear: crrl clean older=30d, max_gb=20, or a kind.")
    else:
        if dry_run:
            for entry in done.entries:
                console.print(
                    f"{entry.kind}  {entry.name}  {cache.in_words(entry.size)}  {_ago(entry.used)}", soft_wrap=True
                )
        verb = "Would remove" if dry_run else "Removed"
        console.print(f"{verb} {cache.counted(len(done.entries))}, {cache.in_words(done.freed)}.")
        in_use = sum(reason in cache.EXPECTED for _, reason in done.kept)
        if in_use:
            console.print(f"{in_use} in use: kept.")
        for entry, reason in done.kept:
            if reason not in cache.EXPECTED:
                console.print(f"Kept {entry.name}: {reason}", soft_wrap=True)
    for note in found.notes:
        console.print(note, soft_wrap=True)


def _ago(when: float | None) -> str:
    if when is None:
        return "-"
    hours = max(time.time() - when, 0) / 3600
    if hours < 1:
        return f"{hours * 60:.0f} min ago"
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} days ago"
