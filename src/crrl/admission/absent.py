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
    (r"Plugin \[id: '([\w.-]+)'.*?\] was not found", "the Gradle plugin {}"),
    (r"package ([\w.]+) does not exist", "the Java package {}"),
    (r"UnsupportedClassVersionError:.*?class file version ([\d.]+)", "a newer Java (class files of version {})"),
    (r"release version (\d+) not supported", "Java {}"),
    (r"Unsupported class file major version (\d+)", "an older Java (its build knows no class files of version {})"),
    (r"(?:[Ss]ource|[Tt]arget) option (\d+) is no longer supported", "a Java that compiles for {}"),
    (r"invalid (?:source|target) release:? (\S+)", "Java {}"),
    (r"No enum constant (\S*(?:JavaVersion|LanguageLevel)\S*)", "an older Java (its build knows no {})"),
    (r"cannot find module providing package (\S+?):?\s", "the Go module of {}"),
    (r"(\S+): module lookup disabled by GOPROXY=off", "the Go module {}"),
    (r"missing go\.sum entry for (?:module providing package )?(\S+)", "the Go module {}"),
    (r"go\.mod requires go >= ([\d.]+)", "Go {}"),
    (r"invalid go version '([\d.]+)'", "Go {}"),
    (r"no required module provides package (\S+?);", "the Go module of {}"),
    (r"package (\S+) is not in (?:GOROOT|std)", "a newer Go (with its package {})"),
    (r"note: module requires Go ([\d.]+)", "Go {}"),
    (r"requires rustc ([\d.]+)", "Rust {}"),
    (r"feature `(edition\d+)` is required", "a newer Cargo ({})"),
    (r"lock file version `?(\d+)`? (?:was found|requires)", "a newer Cargo (lock files of version {})"),
    (r"no such command: `([\w-]+)`", "the program cargo-{}"),
    (r"linker `([\w.-]+)` not found", "the program {}"),
    (r"[Ss]ystem library `([\w.+-]+)` required by crate", "the library {}"),
    (r"No such built-in module: (node:[\w/]+)", "a newer Node.js (with {})"),
    (r"Cannot find (?:module|package) '([^'./][^']*)'", "the npm package {}"),
    (r"fatal error: ([\w./+-]+\.h(?:pp)?): No such file", "the C header {}"),
    (r"(lib[\w.+-]+\.so[\d.]*): cannot open shared object file", "the library {}"),
    (r"ModuleNotFoundError: No module named '([\w.]+)'", "the Python module {}"),
    (r"Error importing plugin \"([\w.]+)\": No module named", "the Python module {}"),
    (r"PackageNotFoundError: (?:No package metadata was found for )?([\w.-]+)", "the Python package {}"),
    (r"DistributionNotFound: The '([\w.-]+)[^']*' distribution", "the Python package {}"),
    (r"cannot import name '(\w+)' from 'collections'", "an older Python (its collections has no {})"),
    (r"module 'collections' has no attribute '(\w+)'", "an older Python (its collections has no {})"),
    (r"(?:requires|needs) a different Python: (\S+ not in '[^']+')", "another Python ({})"),
    (
        r"Temporary failure in name resolution|Name or service not known|Could not resolve host|UnknownHostException"
        r"|getaddrinfo (?:EAI_AGAIN|ENOTFOUND)|Network is unreachable|dial tcp: lookup ",
        "the network",
    ),
    (r"no display name and no \$DISPLAY|[Cc]ould not connect to display|Missing X server or \$DISPLAY", "a display"),
    (r"locale\.Error: unsupported locale setting", "a locale"),
    (r"(?:sh|bash|zsh): (?:(?:line )?\d+: )?([^\s:]+): (?:command )?not found", "the program {}"),
    (
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '([\w.+-]+)'\s+\S*/subprocess\.py:",
        "the program {}",
    ),
)


UNBUILT: tuple[tuple[str, str], ...] = (  # said of the repository's own modules
    (r"without building the extension modules", "its extension modules, which are not built here"),
    (
        r"numpy from its source directory|has not been built correctly",
        "its extension modules, which are not built here",
    ),
    (r"C extension: (\S+) not built", "its extension module {}, which is not built here"),
    (r"No module named '(\w[\w.]*\._\w+)'", "its extension module {}, which is not built here"),
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
    for sign, what in UNBUILT:
        if found := re.search(sign, output):
            return what.format(*found.groups())
    return ""
