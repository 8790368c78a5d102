"""One way to plug in: parts by name, from a room's own table or from the entry points of an installed distribution.

A room writes down its parts as `name -> "module:attribute"`; a distribution adds to them with entry points in the
group of that kind (`GROUPS`). Both are text: a part is imported when it is asked for by name, so that a misspelt
setting is answered in a fraction of a second. The tables are read by name, too: this module stands below every room.

Invariant: a name means one thing. Two parts of one kind and name, a group that is none of these, or a part that cannot
be imported is an error that names the distribution; no part ever hides another.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from crrl.errors import CrrlError, RunError, UsageError, nearest

if TYPE_CHECKING:
    from importlib import metadata

# group of entry points -> (what a part of it is called, where the room's own table is)
GROUPS: dict[str, tuple[str, str]] = {
    "crrl.engines": ("engine", "crrl.engines:ENGINES"),
    "crrl.agents": ("agent", "crrl.agents:AGENTS"),
    "crrl.rewards": ("reward", "crrl.rewards:REWARDS"),
    "crrl.advantages": ("advantage", "crrl.learning:ADVANTAGES"),
    "crrl.losses": ("loss", "crrl.learning:LOSSES"),
    "crrl.corpora": ("corpus", "crrl.tasks.corpora:CORPORA"),
    "crrl.renderers": ("renderer", "crrl.gateway.renderer:RENDERERS"),
    "crrl.sandboxes": ("sandbox", "crrl.sandbox:SANDBOXES"),
    "crrl.trackers": ("tracker", "crrl.report.trackers:TRACKERS"),
}
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class PartError(RunError):
    """A part of another distribution is broken: the run stops, and its author can put it right."""


@dataclass(frozen=True)
class Part:
    """A part that is registered, not yet imported. `distribution`: the one that registered it; "": crrl itself."""

    group: str
    name: str
    target: str
    distribution: str

    @property
    def ours(self) -> bool:
        return not self.distribution

    def __str__(self) -> str:
        whose = "" if self.ours else f" ({self.target}, from {self.distribution})"
        return f"{GROUPS[self.group][0]} '{self.name}'{whose}"

    def load(self) -> Any:
        """What the target names. Raises CrrlError: it cannot be imported."""
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for word in attribute.split("."):
                found = getattr(found, word)
        except (Exception, SystemExit) as error:
            if self.ours:
                raise
            raise self.broken(f"cannot be imported: {_said(error)}") from error
        return found

    def make(self, *given: Any, **named: Any) -> Any:
        """The part, called with what its room gives. Raises UsageError: it refuses the values; CrrlError."""
        made = self.load()
        try:
            return made(*given, **named)
        except Exception as error:
            if self.ours or isinstance(error, CrrlError):
                raise
            if isinstance(error, ValueError):
                raise UsageError(f"The {self} refuses its settings: {_said(error)}") from error
            raise self.broken(f"cannot be made: {_said(error)}") from error

    def require(self, made: Any, *protocols: type) -> Any:
        """`made`, which has all that the protocols name. Raises PartError, saying what is missing."""
        for protocol in protocols:
            wanted = {*vars(protocol), *inspect.get_annotations(protocol)}
            public = {name for name in wanted if name == "__call__" or not name.startswith("_")}
            if missing := sorted(name for name in public if not hasattr(made, name)):
                where = f"{protocol.__module__}.{protocol.__name__}"
                raise self.broken(f"has no `{'`, no `'.join(missing)}`, which {where} asks for.")
        return made

    def options(self, written: Mapping[str, Any], setting: str, given: int = 0) -> dict[str, Any]:
        """What the recipe has under `setting`, for `make`: checked against names and types of the part's parameters.
        `given`: how many of them, the first ones, the room gives. Raises UsageError: unknown, of another type, missing.
        """
        import msgspec  # a process that is started for every command imports this module

        accepted = self._parameters(given)

        def refused(key: str, why: str) -> UsageError:
            lines = [f"{setting}.{p.name} ({_type_name(kind)}{_default(p)})" for p, kind in accepted.values()]
            hint = f"Its parameters: {', '.join(lines)}." if lines else f"It has none: leave {setting} out."
            return UsageError(f"{setting}.{key}{why}", hint)

        checked = {}
        for key, value in written.items():
            if key not in accepted:
                raise refused(key, f": the {self} has no such parameter.")
            try:
                checked[key] = msgspec.convert(value, accepted[key][1])
            except msgspec.ValidationError as error:
                raise refused(key, f"={value}: {error}.") from None
        for key, (parameter, _) in accepted.items():
            if parameter.default is parameter.empty and key not in written:
                raise refused(key, f" is missing: the {self} needs it.")
        return checked

    def broken(self, what: str) -> PartError:
        """What to raise where the part is wrong. `what`: continues "The reward 'x' (...)"."""
        return PartError(
            f"The {self} {what}", f"Correct {self.distribution}, or remove it: pip uninstall {self.distribution}"
        )

    def _parameters(self, given: int) -> dict[str, tuple[inspect.Parameter, Any]]:
        """Those a recipe may set, each with its type."""
        made = self.load()
        try:
            parameters = list(inspect.signature(made).parameters.values())[given:]
            hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
        except (TypeError, ValueError, NameError) as error:
            raise self.broken(f"has parameters that cannot be read: {_said(error)}") from error
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return {p.name: (p, hints.get(p.name, Any)) for p in parameters if p.kind in named}


def names(group: str) -> list[str]:
    """The names there are, crrl's own first. Raises CrrlError as `parts` does."""
    return list(parts(group))


def find(group: str, name: str) -> Part:
    """Raises UsageError where there is no such part, and as `parts` does."""
    known = parts(group)
    if name not in known:
        raise UsageError(f"There is no {GROUPS[group][0]} named '{name}'.", nearest(name, known))
    return known[name]


@cache
def parts(group: str) -> Mapping[str, Part]:
    """All parts of a kind by name. Raises CrrlError: two have one name, or entry points that cannot be read."""
    module, _, attribute = GROUPS[group][1].partition(":")
    table: Mapping[str, str] = getattr(importlib.import_module(module), attribute)
    found = {name: Part(group, name, target, "") for name, target in table.items()}
    for part in _plugged_in():
        if part.group != group:
            continue
        if (other := found.get(part.name)) is not None:
            raise CrrlError(
                f"Two parts have one name: the {other}, and the {part}.",
                f"Rename it in the entry points of {part.distribution}, or remove one: "
                f"pip uninstall {part.distribution}",
            )
        found[part.name] = part
    return found


@cache
def _plugged_in() -> list[Part]:
    """What the distributions on the path have in groups `crrl.*`, by distribution. Raises CrrlError."""
    from importlib import metadata

    found: dict[str, list[Part]] = {}
    for distribution in metadata.distributions():
        text = distribution.read_text("entry_points.txt")
        if text is None or not re.search(r"^\s*\[\s*crrl\.", text, re.MULTILINE):
            continue
        name = distribution.metadata["Name"] or f"the nameless distribution in {distribution.locate_file('')}"
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key not in found:  # one that is twice on the path: Python imports the first
            found[key] = list(_parts_of(distribution, name))
    return [part for _, those in sorted(found.items()) for part in those]


def _parts_of(distribution: metadata.Distribution, name: str) -> Iterator[Part]:
    correct = f"Correct the entry points of {name} and install it again, or remove it: pip uninstall {name}"
    try:
        points = list(distribution.entry_points)
    except Exception as error:  # the standard library's reader has no error of its own
        raise CrrlError(f"The entry points of {name} cannot be read ({_said(error)}).", correct) from error
    for point in points:
        if not point.group.startswith("crrl."):
            continue
        if point.group not in GROUPS:
            raise CrrlError(
                f"{name} has entry points in {point.group}, which is no group of crrl's.",
                f"{nearest(point.group, GROUPS)} {correct}",
            )
        if not _TARGET.fullmatch(point.value):
            raise CrrlError(f"{name}, {point.group}: '{point.value}' is not MODULE:ATTRIBUTE.", correct)
        yield Part(point.group, point.name, point.value, name)


def _said(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else f", {parameter.default}"
