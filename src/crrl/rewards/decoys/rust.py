"""What is changed in Rust's assertions.

Where both sides of assert_eq!, or of `==` in assert!, are computed, the first is compared with the default of the
second's type, if it has one. Not the opposite: that is false, too, for what equals anything.
"""

from __future__ import annotations

from tree_sitter import Node

from crrl.rewards.decoys.grammars import walk
from crrl.rewards.decoys.sites import Edit, Finder

CONSTRUCTORS = frozenset(
    {b"Some", b"Ok", b"Err", b"None", b"vec", b"String", b"from", b"new", b"to_string", b"to_owned"}
)
DEFAULT = (
    b"#[allow(warnings)] struct W%(n)s<T>(std::marker::PhantomData<T>); "
    b"#[allow(warnings)] trait H%(n)s<T> { fn other(&self, like: &T) -> Option<T>; } "
    b"impl<T: Default> H%(n)s<Vec<T>> for &&W%(n)s<Vec<T>> { fn other(&self, like: &Vec<T>) -> Option<Vec<T>> { "
    b'let own = std::any::type_name::<T>().contains("::"); '
    b"Some(like.iter().filter(|_| own).map(|_| T::default()).collect()) } } "
    b"impl<T: Default> H%(n)s<Option<T>> for &&W%(n)s<Option<T>> { fn other(&self, like: &Option<T>) -> "
    b"Option<Option<T>> { Some(like.as_ref().map(|_| T::default())) } } "
    b"#[allow(warnings)] trait D%(n)s<T> { fn other(&self, like: &T) -> Option<T>; } "
    b"impl<T: Default> D%(n)s<T> for &W%(n)s<T> { fn other(&self, like: &T) -> Option<T> { Some(T::default()) } } "
    b"#[allow(warnings)] trait N%(n)s<T> { fn other(&self, like: &T) -> Option<T>; } "
    b"impl<T> N%(n)s<T> for W%(n)s<T> { fn other(&self, like: &T) -> Option<T> { None } } "
    b"#[allow(warnings)] fn of%(n)s<T>(_: &T) -> W%(n)s<T> { W%(n)s(std::marker::PhantomData) } "
)
"""Some default of a value's type, of what a vector or an option of a type with a path holds as many; None where it has
none: the compiler takes the first trait that it can, of which the later ones are reached by fewer references."""
TOLD = b" assert!(told); }"
"""What `_compared_with_default` ends with."""


def edits(finder: Finder, node: Node) -> list[Edit]:
    """Of one macro; [] where it is no assertion, or stands in a test that should panic."""
    macro, tokens = node.child_by_field_name("macro"), node.named_children[-1]
    name = finder.text(macro).decode().removeprefix("debug_") if macro is not None else ""
    if name not in ("assert", "assert_eq", "assert_ne") or tokens.type != "token_tree" or macro is None:
        return []
    if _panics(finder, node):
        return []
    parts: list[list[Node]] = [[]]
    for token in tokens.children[1:-1]:
        parts.append([]) if token.type == "," else parts[-1].append(token)
    if name == "assert":
        kinds = [token.type for token in parts[0]]
        if kinds.count("==") != 1 or kinds[0] == "==" or {"&&", "||", "<", ">"} & {*kinds}:
            first = _source(finder, parts[0])
            return [Edit(parts[0][0].start_byte, parts[0][-1].end_byte, b"!(" + first + b")")] if parts[0] else []
        at = kinds.index("==")
        parts = [parts[0][:at], parts[0][at + 1 :]]
    if name == "assert_ne":
        return [finder.replaced(macro, b"assert_eq")]
    for part in parts[1::-1]:
        leaves = [leaf for top in part for leaf in finder.literals(top)]
        if leaves and all(_constructs(finder, n) for top in part for n in walk(top) if n.type == "identifier"):
            return [finder.altered(finder.rng.choice(leaves))]
    for part in parts[1::-1]:
        if len(part) == 1 and (found := finder.from_names(node, part[0])):
            return found
    return _compared_with_default(finder, node, parts)


def _compared_with_default(finder: Finder, node: Node, parts: list[list[Node]]) -> list[Edit]:
    if len(parts) < 2 or not parts[0] or not parts[1]:
        return []
    text = (
        b"{ " + DEFAULT + b"let (one, two) = (&(%(one)s), &(%(two)s)); "
        b"let told = match (&&&of%(n)s(two)).other(two) { Some(other) => *one == other, None => *one != *two };" + TOLD
    )
    drawn = finder.rng.randbytes(4).hex().encode()
    values = {b"n": drawn, b"one": _source(finder, parts[0]), b"two": _source(finder, parts[1])}
    return [finder.replaced(node, text % values)]


def _source(finder: Finder, part: list[Node]) -> bytes:
    return finder.data[part[0].start_byte : part[-1].end_byte] if part else b""


def _constructs(finder: Finder, name: Node) -> bool:
    """Whether the name is of a type, a constructor or a field: `Point::new`, `Point { x: 1 }`."""
    text, after = finder.text(name), name.next_sibling
    return text in CONSTRUCTORS or text[:1].isupper() or (after is not None and finder.text(after) == b":")


def _panics(finder: Finder, node: Node) -> bool:
    """Whether the test is one that should panic."""
    at = finder.function(node).prev_named_sibling
    while at is not None and at.type == "attribute_item":
        if b"should_panic" in finder.text(at):
            return True
        at = at.prev_named_sibling
    return False
