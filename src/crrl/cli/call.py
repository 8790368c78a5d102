"""The words of the command line, sorted into arguments, `key=value` settings and flags."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crrl.errors import UsageError, nearest

SCHEMA = 1  # of all --json output; raised when a field changes its meaning
FLAGS = ("--json", "--dry-run", "--help")
OF_VERBS = {"export": ("--merged",)}
"""Flags of one verb only."""


@dataclass
class Call:
    """`settings`: the `key=value` words as the user wrote them, in order. `flags`: those of the verb alone."""

    verb: str
    arguments: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    json: bool = False
    dry_run: bool = False
    help: bool = False
    flags: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, verb: str, words: Sequence[str]) -> Call:
        """Flags may stand anywhere. A word with `=` is a setting. Raises UsageError on an unknown flag."""
        call, valid = cls(verb), (*FLAGS, *OF_VERBS.get(verb, ()))
        for word in words:
            if word in ("-h", "--help"):
                call.help = True
            elif word == "--json":
                call.json = True
            elif word == "--dry-run":
                call.dry_run = True
            elif word in OF_VERBS.get(verb, ()):
                call.flags.append(word)
            elif word.startswith("--"):
                name, _, value = word.lstrip("-").partition("=")
                key = name.replace("-", "_")
                remedy = f"Settings have no dashes: {key}={value or 'VALUE'}. " if value or word not in valid else ""
                raise UsageError(f"crrl {verb} has no flag {word}.", remedy + nearest(word, valid))
            elif "=" in word:
                call.settings.append(word)
            else:
                call.arguments.append(word)
        return call

    def take(self, key: str) -> str | None:
        """Remove one of the verb's own settings (`resume=`) and return its value; the last one wins."""
        values = [s.partition("=")[2] for s in self.settings if s.partition("=")[0] == key]
        self.settings = [s for s in self.settings if s.partition("=")[0] != key]
        return values[-1] if values else None

    def state_dir(self) -> Path:
        """`sandbox.state_dir=FOLDER`, as runs have it: where caches, toolchains and interpreters lie."""
        from crrl.sandbox import default_state_dir

        return Path(self.take("sandbox.state_dir") or default_state_dir()).absolute()

    def only(self, *names: str, optional: int = 0) -> list[str]:
        """The verb's arguments: `names` in order, of which the last `optional` may be missing. Raises UsageError."""
        least = len(names) - optional
        if len(self.arguments) < least:
            raise UsageError(f"crrl {self.verb} needs {names[len(self.arguments)]}.", f"See: crrl {self.verb} --help")
        if len(self.arguments) > len(names):
            extra = self.arguments[len(names)]
            raise UsageError(
                f"crrl {self.verb} does not know what to do with '{extra}'.",
                f"Settings are written key=value. See: crrl {self.verb} --help",
            )
        return self.arguments

    def no_settings(self) -> None:
        if self.settings:
            raise UsageError(
                f"crrl {self.verb} takes no settings, got '{self.settings[0]}'.",
                f"See: crrl {self.verb} --help",
            )


def print_json(value: dict[str, Any]) -> None:
    """One JSON document on stdout, `schema` first."""
    json.dump({"schema": SCHEMA, **value}, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()


def whole_number(values: dict[str, str], key: str, default: int, least: int = 0) -> int:
    """The value of one of a verb's own settings. Raises UsageError."""
    value = values.get(key)
    if value is None:
        return default
    if not value.isdigit() or int(value) < least:
        raise UsageError(f"{key}={value} is not a whole number of at least {least}.", f"Write e.g. {key}={default}.")
    return int(value)
