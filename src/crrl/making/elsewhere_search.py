"""Run inside a box: which bodies of functions can be read in a file that the box shows.

Needs the standard library alone. Takes a JSON file [{"name", "path", "lines"}...] and prints, for each, the first file
or "". A body is shown where at least SHARE of its lines stand within
twice its length, whatever stands before them (the signs of a patch, a comment, a prompt); one of a line or two only
where the function's name stands, too. Archives are opened, compiled files without their source are read by their names.
The function's own file is not searched.
"""

from __future__ import annotations

import glob
import io
import json
import marshal
import math
import os
import re
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from types import CodeType
from typing import Any

ROOTS = ("/workspace", "/environment", "/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs")
OF_PYTHON = ("/usr/lib/python3*", "/usr/local/lib/python3*")
SHARE, LEAST_CHARS, FEW = 0.8, 6, 2
LARGEST, LARGEST_ARCHIVE = 4 << 20, 64 << 20
BEFORE = re.compile(r"^[\s+>#*/|-]*(?:\.\.\.(?=\s))?\s*")
CODE = (".py", ".pyi", ".pyx", ".go", ".js", ".cjs", ".mjs", ".jsx", ".ts", ".tsx", ".rs", ".java")
PROGRAMS = (".so", ".a", ".o", ".dll", ".png", ".jpg", ".gz", ".xz", ".bz2", ".mo", ".gir", ".typelib")
HEADER = 16  # of a compiled file


def plain(line: str) -> str:
    return " ".join(BEFORE.sub("", line, count=1).split())


def wanted(asked: dict[str, Any]) -> tuple[str, frozenset[str]]:
    """(name, its lines that say something; all of them where none does)."""
    lines = [plain(line) for line in asked["lines"]]
    return asked["name"], frozenset([line for line in lines if len(line) >= LEAST_CHARS] or lines)


def shows(lines: list[str], bodies: list[tuple[str, frozenset[str]]]) -> list[int]:
    """Which of the bodies stand there."""
    having: dict[str, list[int]] = defaultdict(list)
    for number, (_, body) in enumerate(bodies):
        for line in body:
            having[line].append(number)
    places: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for at, line in enumerate(lines):
        if (text := plain(line)) in having:
            for number in having[text]:
                places[number].append((at, text))
    return [number for number, at in places.items() if _together(lines, at, *bodies[number])]


def _together(lines: list[str], places: list[tuple[int, str]], name: str, body: frozenset[str]) -> bool:
    least = math.ceil(SHARE * len(body))
    if len({text for _, text in places}) < least:
        return False
    if len(body) <= FEW and not any(re.search(rf"\b{re.escape(name)}\b", line) for line in lines):
        return False
    window = 2 * len(body) + 5
    first = 0
    for last, (at, _) in enumerate(places):
        while places[first][0] < at - window:
            first += 1
        if len({text for _, text in places[first : last + 1]}) >= least:
            return True
    return False


def files(root: str) -> Iterator[str]:
    for here, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != ".git"]
        yield from (os.path.join(here, name) for name in names)


def texts(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, content): the file's, or of what an archive holds."""
    try:
        if os.path.islink(path) or not os.path.isfile(path):
            return
        size, inside = os.path.getsize(path), path.startswith("/workspace/")
        if size <= LARGEST_ARCHIVE and path.endswith((".whl", ".egg", ".zip", ".jar")) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.file_size <= LARGEST:
                        yield f"{path}!{info.filename}", archive.read(info)
        elif inside and size <= LARGEST_ARCHIVE and path.endswith((".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")):
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile() and member.size <= LARGEST and (file := archive.extractfile(member)):
                        yield f"{path}!{member.name}", file.read()
        elif path.endswith((".pyc", ".pyo")) and not inside and has_source(path):
            return
        elif size <= LARGEST and not path.endswith(PROGRAMS) and (inside or path.endswith((*CODE, ".pyc", ".pyo"))):
            with open(path, "rb") as file:
                yield path, file.read()
    except (OSError, EOFError, RuntimeError, NotImplementedError, tarfile.TarError, zipfile.BadZipFile, ValueError):
        return  # nobody else can read it either


def names_in(data: bytes) -> Iterator[tuple[str, set[str]]]:
    """(function, names that it uses) of a compiled file."""
    try:
        todo = [marshal.load(io.BytesIO(data[HEADER:]))]
    except (ValueError, EOFError, TypeError):
        return
    while todo:
        code = todo.pop()
        if isinstance(code, CodeType):
            yield code.co_name, {*code.co_names, *code.co_varnames}
            todo += code.co_consts


def compiled(data: bytes, bodies: list[tuple[str, frozenset[str]]]) -> list[int]:
    used: dict[str, list[set[str]]] = defaultdict(list)
    for name, names in names_in(data):
        used[name].append(names)
    found = []
    for number, (name, body) in enumerate(bodies):
        words = set(re.findall(r"[A-Za-z_]\w+", "\n".join(body)))
        if any(names and len(names & words) >= SHARE * len(names) for names in used.get(name, ())):
            found.append(number)
    return found


def has_source(path: str) -> bool:
    folder, name = os.path.split(path)
    module = name.split(".")[0] + ".py"
    return any(os.path.exists(os.path.join(place, module)) for place in (folder, os.path.dirname(folder)))


def main(asked_file: str) -> list[str]:
    with open(asked_file) as file:
        asked = json.load(file)
    bodies = [wanted(one) for one in asked]
    own = {os.path.join("/workspace", one["path"]) for one in asked}
    found = [""] * len(asked)
    roots = [*ROOTS, *(place for pattern in OF_PYTHON for place in glob.glob(pattern))]
    ours = {os.path.abspath(asked_file), os.path.abspath(__file__)}
    for path in (path for root in roots for path in files(root)):
        if path in ours:
            continue
        for name, data in texts(path):
            if name.endswith((".pyc", ".pyo")):
                shown = compiled(data, bodies)
            else:
                shown = shows(data.decode("utf-8", "replace").splitlines(), bodies)
            for number in shown:
                if not (path in own and path == os.path.join("/workspace", asked[number]["path"])):
                    found[number] = found[number] or name
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
