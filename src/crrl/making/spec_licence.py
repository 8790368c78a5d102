"""The licence of a project, or of one of its files, by its SPDX name, as far as its own files say.

Looked for in this order: the head of the file itself (SPDX-License-Identifier, or the words of a licence); LICENSE or
COPYING in its own folders (code that was taken over); the project's pyproject.toml, Cargo.toml and package.json, the
text of its LICENSE or COPYING, PKG-INFO, setup.cfg and setup.py. What is not known is `unknown`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from crrl.errors import UsageError, nearest

UNKNOWN = "unknown"
BY_TEXT = (  # what a licence's own text says -> its name; the first that fits
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "AGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "LGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1", "LGPL-2.1"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "GPL-2.0"),
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"Mozilla Public License,? (?:Version|v\.) ?2\.0", "MPL-2.0"),
    (r"PYTHON SOFTWARE FOUNDATION LICENSE", "PSF-2.0"),
    (r"This is free and unencumbered software released into the public domain", "Unlicense"),
    (r"Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"Permission to use, copy, modify, and/?(?:or)? distribute this software for any\s+purpose", "ISC"),
    (r"Redistribution and use in source and binary forms[\s\S]*(?:Neither the name|endorse)", "BSD-3-Clause"),
    (r"Redistribution and use in source and binary forms", "BSD-2-Clause"),
    (r"CC0 1\.0 Universal", "CC0-1.0"),
    (r"DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE", "WTFPL"),
)  # fmt: skip
BY_WORDS = (  # how metadata call them -> their names
    *((r"\bAGPL|Affero", "AGPL-3.0"), (r"(?:\bLGPL|L\w+ General).*2", "LGPL-2.1")),
    (r"\bLGPL|L\w+ General", "LGPL-3.0"),
    *(
        (r"\bGPL.*2|General Public License.*\b(?:v|v\.|version )2", "GPL-2.0"),
        (r"\bGPL|General Public License", "GPL-3.0"),
    ),
    *((r"Apache", "Apache-2.0"), (r"MPL|Mozilla", "MPL-2.0"), (r"\bMIT\b", "MIT"), (r"\bISC", "ISC")),
    *((r"\bPSF|Python Software Foundation", "PSF-2.0"), (r"BSD.*2", "BSD-2-Clause"), (r"BSD", "BSD-3-Clause")),
    *((r"Unlicense", "Unlicense"), (r"CC0", "CC0-1.0"), (r"WTFPL", "WTFPL"), (r"zlib", "Zlib")),
)
FAMILIES = ("AGPL", "LGPL", "GPL", "BSD", "MIT", "Apache", "MPL", "ISC", "PSF", "Unlicense", "CC0", "WTFPL", "Zlib")
NAMED = re.compile(r"SPDX-License-Identifier:\s*([^\s*/]+(?:\s+(?:OR|AND|WITH)\s+[^\s*/]+)*)")
WORDED = re.compile(
    r"(?:GNU (?:Affero |Lesser |Library )?General Public Licen[cs]e.{0,80}?\b[vV](?:ersion )?[23]"
    r"|(?:under the|under) [\w ]{0,30}(?:Apache|MIT|BSD|Mozilla Public|ISC)[\w -]{0,12}Licen[cs]e)"
)
HEAD = 3000  # bytes of a file in which its licence would stand
TEXTS = ("LICENSE*", "LICENCE*", "COPYING*", "license*", "licence*", "UNLICENSE*")
METADATA = ("PKG-INFO", "setup.cfg", "setup.py")
IN_METADATA = re.compile(
    r"(?m)^\s*license(?:[_-]expression)?\s*[:=]\s*[\"']?([^\"'\n,]+)|License ::(?: OSI Approved ::)?([^\"'\n]+)", re.I
)


@dataclass(frozen=True)
class Licences:
    """Which licences tasks may have: only `kept`, where it names any, and none of `refused`. A name stands for its
    versions, too: GPL for GPL-2.0 and GPL-3.0-or-later, not for LGPL."""

    kept: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @staticmethod
    def of(words: str) -> Licences:
        """`MIT,BSD,Apache-2.0`, or `-GPL,-AGPL`. Raises UsageError."""
        named = [word.strip() for word in words.split(",") if word.strip()]
        for name in (word.removeprefix("-") for word in named):
            if not any(_is_a(name, family) for family in (*FAMILIES, UNKNOWN)):
                raise UsageError(f"licences: there is no {name}.", nearest(name, (*FAMILIES, UNKNOWN)))
        refused = tuple(word[1:] for word in named if word.startswith("-"))
        return Licences(tuple(word for word in named if not word.startswith("-")), refused)

    def allow(self, licence: str) -> bool:
        """Of a choice (`MIT OR GPL-3.0`) one has to be allowed, of a conjunction all."""
        if " OR " in licence:
            return any(self.allow(part) for part in licence.split(" OR "))
        if " AND " in licence:
            return all(self.allow(part) for part in licence.split(" AND "))
        name = licence.strip("() ")
        if any(_is_a(name, other) for other in self.refused):
            return False
        return not self.kept or any(_is_a(name, other) for other in self.kept)


def _is_a(licence: str, name: str) -> bool:
    return licence.lower() == name.lower() or licence.lower().startswith(f"{name.lower()}-")


def of_file(tree: Path, path: str, data: bytes, project: str) -> str:
    """What its own head or folders say; else the project's."""
    head = data[:HEAD].decode("utf-8", "replace")
    if (named := NAMED.search(head)) is not None:
        return named[1]
    plain = re.sub(r"[\s#*/;]+", " ", head)
    if (worded := WORDED.search(plain)) is not None and (licence := _by(BY_WORDS, worded[0])):
        return licence
    for folder in list(PurePath(path).parents)[:-1]:  # not the project's own
        if licence := _by(BY_TEXT, _licence_text(tree / folder)):
            return licence
    return project


def of_project(tree: Path) -> str:
    """SPDX, `unknown` where nothing says."""
    return next(filter(None, _said(tree)), UNKNOWN)


def _said(tree: Path) -> Iterator[str]:
    for name in ("pyproject.toml", "Cargo.toml"):
        table = _toml(tree / name)
        said = table.get("project", table.get("package", {}))
        licence = said.get("license", "")
        if isinstance(licence, dict):
            licence = licence.get("text", "") or _text(tree, [str(licence.get("file", ""))])
        yield _spdx(str(licence)) or _by(BY_TEXT, str(licence))
        yield _by(BY_WORDS, " ".join(word for word in said.get("classifiers", []) if word.startswith("License ::")))
    if (tree / "package.json").is_file():
        with contextlib.suppress(ValueError, AttributeError):
            yield _spdx(str(json.loads((tree / "package.json").read_text("utf-8", "replace")).get("license", "")))
    yield _by(BY_TEXT, _licence_text(tree))
    for name in METADATA:
        for match in IN_METADATA.finditer(_text(tree, [name])):
            yield _spdx(match[1] or match[2])


def _spdx(said: str) -> str:
    """A short statement: an SPDX expression as it is, other words by what they name."""
    said = said.strip()
    if re.fullmatch(r"[A-Za-z0-9.+-]+-[0-9][A-Za-z0-9.+-]*|MIT|ISC|Unlicense|WTFPL|Zlib|BSD-\d-Clause", said):
        return said
    if re.search(r" (?:OR|AND|WITH) ", said) and len(said) < 80:
        return said.strip("() ")
    return _by(BY_WORDS, said) if len(said) < 120 else ""


def _by(table: Sequence[tuple[str, str]], said: str) -> str:
    return next((name for pattern, name in table if re.search(pattern, said, re.I)), "")


def _licence_text(folder: Path) -> str:
    return _text(folder, sorted({path.name for glob in TEXTS for path in folder.glob(glob)}))


def _text(tree: Path, names: Sequence[str]) -> str:
    found = [tree / name for name in names if name and (tree / name).is_file()]
    return "\n".join(path.read_text("utf-8", "replace")[:100_000] for path in found)


def _toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text("utf-8", "replace")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, OSError):
        return {}
