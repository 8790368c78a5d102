"""Which modules a test stands in: two of a build may have a class, or a package, of the same full name.

Reports of Maven, Gradle and Go do not say which module a suite was in, so a module that does not compile, or ends too
early, leaves its tests to its namesake. Here the test files say it (invariant 3): each module has a canary with a tag
of its own, and a test counts only where each of the modules that have it came to its end (`canaries.ended`).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping

JAVA_TEST = re.compile(r"(^|.*/)src/test/java/(?:.*/)?(?P<stem>\w+)\.java$")
Homes = Callable[[str, str], frozenset[str]]
"""(suite, test) -> the tags of the modules that have it; none where no file says it."""
Texts = Mapping[str, str]


def tag(module: str) -> str:
    """What stands before the name of a module's canary."""
    return f"M{hashlib.sha256(module.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def is_go_test(path: str) -> bool:
    """What `go test ./...` looks at."""
    return path.endswith("_test.go") and not re.search(r"(^|/)([._]|vendor/|testdata/)", path)


def java(texts: Texts, canaries: Collection[str]) -> Homes:
    """Modules of Maven and Gradle; a test's class stands in its id. `canaries`: paths; not every module has one."""
    marked = {at[1] for path in canaries if (at := JAVA_TEST.match(path))}
    classes: dict[str, list[tuple[str, str]]] = defaultdict(list)  # full name -> (tag, text) of its files
    for path, text in texts.items():
        if (at := JAVA_TEST.match(path)) and at[1] in marked:
            package = re.search(r"^\s*package\s+([\w.]+)\s*;", text, flags=re.MULTILINE)
            classes[f"{package[1]}.{at['stem']}" if package else at["stem"]].append((tag(at[1] or ""), text))

    def homes(suite: str, test: str) -> frozenset[str]:
        name, _, method = test.partition("::")
        return _having(classes.get(name.partition("$")[0], []), method)

    return homes


def go(texts: Texts, canaries: Collection[str]) -> Homes:
    """Packages by their import path; a module's go.mod says how it begins."""
    modules = {posixpath.dirname(path): path for path in texts if posixpath.basename(path) == "go.mod"}
    packages: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in filter(is_go_test, sorted(texts)):
        folder = posixpath.dirname(path)
        root = next((above for above in _above(folder) if above in modules), None)
        said = re.search(r'^\s*module\s+"?([^\s"]+)', texts[modules[root]], re.MULTILINE) if root is not None else None
        if root is not None and said is not None:
            below = posixpath.relpath(folder or ".", root or ".")
            packages[said[1] if below == "." else f"{said[1]}/{below}"].append((tag(folder), texts[path]))
    return lambda suite, test: _having(packages.get(suite, []), test.partition("/")[0])


def _above(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
    yield ""


def _having(files: list[tuple[str, str]], method: str) -> frozenset[str]:
    """The modules whose files name the test; all of them where none does, since it is inherited, or made by a loop."""
    name = re.match(r"\w+", method)
    own = [home for home, text in files if name is not None and re.search(rf"\b{name[0]}\b", text)]
    return frozenset(own or [home for home, _ in files])
