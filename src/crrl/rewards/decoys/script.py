"""What is changed in assertions of JavaScript and TypeScript: Node's `assert`, Jest, Vitest, Jasmine, chai, should.

Where no expected literal can be changed, the assertion becomes its opposite, but for matchers that ask the value itself
whether it is equal: those get another value, since what equals anything passes no opposite, either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from crrl.rewards.decoys.literals import unlike_any
from crrl.rewards.decoys.sites import Edit, Finder

RENAMED = {b"equal": b"notEqual", b"strictEqual": b"notStrictEqual", b"deepEqual": b"notDeepEqual"}
RENAMED |= {b"deepStrictEqual": b"notDeepStrictEqual", b"match": b"doesNotMatch"}
ASKS = frozenset(
    {
        *(b"toEqual", b"toStrictEqual", b"toMatchObject", b"toContainEqual", b"toHaveProperty"),
        *(b"toHaveBeenCalledWith", b"toHaveBeenLastCalledWith", b"toHaveBeenNthCalledWith", b"toBeCalledWith"),
        *(b"lastCalledWith", b"nthCalledWith", b"toHaveReturnedWith", b"toReturnWith"),
    }
)
"""Of Jest, Vitest and Jasmine: a value with a method `asymmetricMatch` is asked whether it is equal."""
CHAI = frozenset(
    {
        *(b"equal", b"equals", b"eq", b"eql", b"eqls", b"include", b"includes", b"contain", b"contains", b"members"),
        *(b"keys", b"property", b"lengthOf", b"length", b"match", b"throw", b"throws", b"a", b"an", b"instanceof"),
        *(b"above", b"below", b"least", b"most", b"within", b"closeTo", b"string", b"oneOf"),
    }
)
CHAI_WORDS = frozenset({b"true", b"false", b"null", b"undefined", b"ok", b"empty", b"exist", b"NaN"})
THROWS = frozenset({b"toThrow", b"toThrowError", b"throw"})
EQUALS = re.compile(r"(is)?(deep)?(equals?|eq|same)(to)?$", re.IGNORECASE)
UNLIKE = (
    b"new Function('v', 'return (function like(v) { const all = (each) => Array.from(each, like); "
    b"if (Array.isArray(v) && v.length) return all(v); if (v instanceof Set && v.size) return new Set(all(v)); "
    b"if (v instanceof Map && v.size) return new Map(Array.from(v, ([k, e]) => [k, like(e)])); "
    b"if (v instanceof Object && Object.keys(v).length && !v.asymmetricMatch) return Object.create("
    b"Object.getPrototypeOf(v), Object.fromEntries(Object.entries(v).map("
    b"([k, e]) => [k, { value: like(e), enumerable: true, writable: true }]))); return { %s: %d }; })(v)')(%s)"
)
"""What nothing is equal to, but what says itself that it is; where the value holds others, in place of each of them,
an object's own properties among them. Of no type, for TypeScript."""


def edits(finder: Finder, function: Node, given: list[Node]) -> list[Edit]:
    """Of one call; [] where it is no assertion. `given`: its arguments."""
    on, of = function.child_by_field_name("property"), function.child_by_field_name("object")
    if finder.text(function) == b"assert" and given:
        return _said_equal(finder, given[0]) or finder.negated(given[0])
    if function.type != "member_expression" or on is None or of is None:
        return []
    name = finder.text(on)
    if finder.text(of) in (b"assert", b"t", b"should") and given:
        if name in RENAMED:
            return finder.expected(function, given[:2][::-1]) or [finder.replaced(on, RENAMED[name])]
        return _said_equal(finder, given[0]) or finder.negated(given[0]) if name in (b"ok", b"true") else []
    if not (name in CHAI if _is_chai(finder, of) else name.startswith(b"to") and _expects(finder, of)):
        return []
    if any(finder.text(word) == b"not" for word, _ in _chain(of)):
        return _turned(finder, of)
    if ([finder.text(value) for value in given] == [b"true"] or name == b"toBeTruthy") and (
        said := _looked(finder, of)
    ):
        return said
    is_class = name in THROWS and given and given[0].type == "identifier"
    found = finder.expected(function, given[:1]) if given and not is_class else []
    if not found and given and name in ASKS:
        found = [_something_else(finder, given[-1])]
    return found or _turned(finder, of)


def _said_equal(finder: Finder, condition: Node) -> list[Edit]:
    """`x.equals(y)`: y is something else. The opposite is false, too, for what says that it equals anything."""
    function, arguments = condition.child_by_field_name("function"), condition.child_by_field_name("arguments")
    if function is None or arguments is None or function.type != "member_expression":
        return []
    if not EQUALS.match(finder.field(function, "property").decode()) or arguments.named_child_count != 1:
        return []
    return [_something_else(finder, arguments.named_children[0])]


def _looked(finder: Finder, of: Node) -> list[Edit]:
    """The same of what `expect` is given. `of`: what follows `expect` in the chain, or that call."""
    at: Node | None = of
    while at is not None and at.type == "member_expression":
        at = at.child_by_field_name("object")
    arguments = at.child_by_field_name("arguments") if at is not None else None
    if arguments is None or at is None or finder.field(at, "function") != b"expect" or not arguments.named_children:
        return []
    return _said_equal(finder, arguments.named_children[0])


def _something_else(finder: Finder, value: Node) -> Edit:
    word, number = unlike_any(finder.rng)
    return finder.replaced(value, UNLIKE % (word.encode(), number, finder.text(value)))


def word_edits(finder: Finder, node: Node) -> list[Edit]:
    """Of a statement without a call, `expect(x).to.be.true;`."""
    word, of = node.child_by_field_name("property"), node.child_by_field_name("object")
    if word is None or of is None or finder.text(word) not in CHAI_WORDS or not _is_chai(finder, of):
        return []
    positive = finder.text(word) in (b"true", b"ok") and not any(finder.text(word) == b"not" for word, _ in _chain(of))
    return (_looked(finder, of) if positive else []) or _turned(finder, of)


def _expects(finder: Finder, of: Node) -> bool:
    return finder.text(of).startswith(b"expect(")


def _is_chai(finder: Finder, of: Node) -> bool:
    words = {finder.text(word) for word, _ in _chain(of)}
    return b"should" in words or (_expects(finder, of) and bool(words & {b"to", b"be", b"have"}))


def _chain(of: Node) -> Iterator[tuple[Node, Node]]:
    """The words of `expect(x).to.not`, from the last, each with what it is a word of."""
    while of.type in ("member_expression", "call_expression"):
        word, inner = of.child_by_field_name("property"), of.child_by_field_name("object")
        if of.type == "call_expression":
            word, inner = None, of.child_by_field_name("function")
        if inner is None:
            return
        if word is not None:
            yield word, inner
        of = inner


def _turned(finder: Finder, of: Node) -> list[Edit]:
    for word, inner in _chain(of):
        if finder.text(word) == b"not":
            return [Edit(inner.end_byte, word.end_byte, b"")]
    return [Edit(of.end_byte, of.end_byte, b".not")]
