"""Verdicts of SWE-bench's harness: its report (`resolved_ids`), and the `results.json` of submissions and of reports
before version 2 (`resolved`, `generated`).

Invariant 2: what the harness could not run (`infra_failure_ids`, since version 5; `install_fail`, `reset_failed`) is
lost. A patch that was empty, did not apply or broke the run is not resolved, as on the leaderboard; an instance that a
report does not list was not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crrl.errors import CrrlError

JUDGED = ("resolved_ids", "unresolved_ids", "empty_patch_ids", "error_ids")
JUDGED_BEFORE = ("resolved", "with_logs", "applied", "no_apply", "no_generation", "test_errored", "test_timeout")
LOST = ("infra_failure_ids", "install_fail", "reset_failed")


@dataclass(frozen=True)
class Verdicts:
    """`resolved`: instance -> whether; `lost`: instances that could not be run."""

    resolved: dict[str, bool]
    lost: list[str]
    version: str


def is_report(path: Path) -> bool:
    if not path.is_file() or path.suffix != ".json":
        return False
    report = _json(path)
    return isinstance(report.get("resolved_ids"), list) or (
        isinstance(report.get("resolved"), list) and any(key in report for key in JUDGED_BEFORE[1:])
    )


def read(file: Path) -> Verdicts:
    """Raises CrrlError: it cannot be read."""
    report = _json(file)
    before = "resolved_ids" not in report
    lost = _ids(report, LOST)
    judged = _ids(report, JUDGED_BEFORE if before else JUDGED) - lost
    resolved = _ids(report, ("resolved" if before else "resolved_ids",))
    version = "before 2" if before else str(report.get("schema_version", ""))
    return Verdicts({id: id in resolved for id in sorted(judged)}, sorted(lost), version)


def _ids(report: Mapping[str, Any], keys: tuple[str, ...]) -> set[str]:
    return {id for key in keys for id in report.get(key) or [] if isinstance(id, str)}


def _json(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
        found = json.loads(re.sub(r",(\s*[\]}])", r"\1", text))  # published ones have commas behind the last entry
    except (OSError, ValueError) as error:
        raise CrrlError(f"{file} cannot be read: {error}", "Write the path of a JSON report.") from error
    return found if isinstance(found, dict) else {}
