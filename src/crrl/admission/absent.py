"""What a run lacked on this machine, told from what it printed: such a task is `unavailable`, not `broken`.

Judged runs are offline. A build that asks for a package, or for another version of a toolchain, says so in its own
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from crrl.rewards.api import TestResults

SIGNS: tuple[tuple[str, str], ...] = (  # what was printed -> what is missing; {} is what the group holds
    (r"no matching package named `([^`]+)` found", "the crate {}"),
    (r"failed to (?:download|get|load source for) (?:dependency )?`?([\w-]+)", "the crate {}"),
    (r"can't find crate for `([^`]+)`", "the crate {}"),
    (r"Could not resolve dependencies for project .*?: .*?([\w.-]+:[\w.-]+:jar:[\w.-]+)", "{}, of Maven"),
    (r"Could not find artifact ([\w.-]+:[\w.-]+:[\w.:-]+)", "{}, of Maven"),
    (r"Cannot access \S+ \(\S+\) in offline mode and the artifact ([\w.:-]+)", "{}, of Maven"),
    (r"Plugin ([\w.:-]+) or one of its dependencies could not be resolved", "the Maven plugin {}"),
    (r"No cached version of ([\w.:-]+) available for offline mode", "{}, of Gradle"),
    (r"Could not resolve ([\w.-]+:[\w.-]+:[\w.-]+)", "{}, of Gradle"),
    (r"package ([\w.]+) does not exist", "the Java package {}"),
    (r"Unsupported class file major version (\d+)", "an older Java (its build knows no class files of version {})"),
    (r"(?:[Ss]ource|[Tt]arget) option (\d+) is no longer supported", "a Java that compiles for {}"),
    (r"invalid (?:source|target) release:? (\S+)", "Java {}"),
    (r"No enum constant (\S*(?:JavaVersion|LanguageLevel)\S*)", "an older Java (its build knows no {})"),
    (r"cannot find module providing package (\S+?):?\s", "the Go module of {}"),
    (r"(\S+): module lookup disabled by GOPROXY=off", "the Go module {}"),
    (r"missing go\.sum entry for (?:module providing package )?(\S+)", "the Go module {}"),
    (r"go\.mod requires go >= ([\d.]+)", "Go {}"),
    (r"invalid go version '([\d.]+)'", "Go {}"),
    (r"requires rustc ([\d.]+)", "Rust {}"),
    (r"Cannot find module '([^'./][^']*)'", "the npm package {}"),
    (r"ModuleNotFoundError: No module named '([\w.]+)'", "the Python module {}"),
    (r"Temporary failure in name resolution|Name or service not known|Could not resolve host", "the network"),
    (r"(?:sh|bash): (?:line )?\d+: (\S+): (?:command )?not found", "the program {}"),
)


def absent(results: Iterable[TestResults], own: Iterable[str] = ()) -> str:
    """What was missing, "" where nothing says so. `own`: paths of the repository: its own modules are not missing."""
    paths = list(own)
    return next((found for one in results if (found := absent_in(one.output, paths))), "")


def absent_in(output: str, own: Iterable[str] = ()) -> str:
    names = {part.removesuffix(".py") for path in own for part in path.split("/")}
    for sign, what in SIGNS:
        for match in re.finditer(sign, output):
            name = (match[1] if match.lastindex else "") or ""
            if not names & set(re.split(r"[./]", name)):  # a module of the repository's own that is not there is a bug
                return what.format(name)
    return ""
