"""What is changed in Go's tests: an `if` that leads to t.Error or t.Fatal, and calls of testify (of its packages, of an
object that they made, of a suite) and is.

Where both sides of `x.Equal(y)` are computed, y becomes the zero value of its type. Not the opposite: that is false,
too, for what equals anything.
"""

from __future__ import annotations

import re

from tree_sitter import Node

from crrl.rewards.decoys.sites import Edit, Finder

FAILS = re.compile(rb"\.(?:Error|Errorf|Fatal|Fatalf|Fail|FailNow)\(")
OBJECTS = (b"assert", b"require", b"is", b"qt")
MADE = rb"\b(?:assert|require|is)\.New\("
OF_SUITE = re.compile(rb"\w+\.(?:Require|Assert)\(\)$|" + MADE)
HANDLE = re.compile(rb"(?:t|b|tb|\w+\.T\(\))$")
"""The test itself, which testify's packages are given first."""
RENAMED = {b"Equal": b"NotEqual", b"True": b"False", b"NoError": b"Error", b"Nil": b"NotNil", b"Len": b"NotEmpty"}
RENAMED |= {b"NotEqual": b"Equal", b"False": b"True", b"Error": b"NoError", b"NotNil": b"Nil"}
EQUAL = re.compile(rb"Eq(?:ual(?:s|To)?)?$")
PACKAGE = re.compile(rb"(?m)^package[ \t].*$")
ZEROED = b" }()"
"""What `_equal_to_nothing` ends with."""


def check(finder: Finder, node: Node) -> list[Edit]:
    """Of an `if` statement; [] where it is no assertion."""
    condition, body = node.child_by_field_name("condition"), node.child_by_field_name("consequence")
    if condition is None or body is None or not FAILS.search(finder.text(body)):
        return []
    if condition.type == "unary_expression" and finder.text(condition).startswith(b"!"):
        stripped = [Edit(condition.start_byte, condition.start_byte + 1, b"")]
        return _equal_to_nothing(finder, condition.child_by_field_name("operand")) or stripped
    return finder.condition(condition)


def edits(finder: Finder, function: Node, given: list[Node]) -> list[Edit]:
    """Of one call; [] where it is no assertion. `given`: its arguments."""
    on, of = function.child_by_field_name("field"), function.child_by_field_name("operand")
    if on is None or of is None or not _asserts(finder, of):
        return []
    name, told = finder.text(on), given
    if given and finder.text(of) in OBJECTS and HANDLE.match(finder.text(given[0])):
        told = given[1:]
    if name in (b"Equal", b"Len", b"EqualValues", b"Contains") and (found := finder.expected(function, told[:2])):
        return found
    if name == b"True" and (found := _equal_to_nothing(finder, told[0] if told else None)):
        return found
    return [finder.replaced(on, RENAMED[name])] if name in RENAMED else []


def _asserts(finder: Finder, of: Node) -> bool:
    """Whether this is a package of assertions, what one made, or a suite: a test's receiver."""
    word = finder.text(of)
    if word in OBJECTS or OF_SUITE.match(word):
        return True
    if of.type != "identifier":
        return False
    at: Node | None = of
    while at is not None and at.type not in ("function_declaration", "method_declaration"):
        at = at.parent
    if at is None:
        return False
    receiver = re.match(rb"\(\s*(\w+)\b", finder.field(at, "receiver"))
    if receiver is not None and receiver[1] == word and finder.field(at, "name").startswith(b"Test"):
        return True
    return re.search(rb"\b" + re.escape(word) + rb"\s*:?=\s*" + MADE, finder.text(at)) is not None


def _equal_to_nothing(finder: Finder, call: Node | None) -> list[Edit]:
    """Of `x.Equal(y)` and `p.Equal(x, y)`: another literal in y, or y's zero value, which is made at run time, behind
    pointers and interfaces, too."""
    function = call.child_by_field_name("function") if call is not None and call.type == "call_expression" else None
    arguments = call.child_by_field_name("arguments") if call is not None else None
    if call is None or function is None or arguments is None:
        return []
    named = function.child_by_field_name("field") or function
    if not EQUAL.match(finder.text(named)):
        return []
    given = [child for child in arguments.named_children if child.type != "comment"]
    package = PACKAGE.search(finder.data)
    if len(given) not in (1, 2) or finder.text(given[-1]) == b"nil" or package is None:
        return []
    if found := finder.expected(call, given[-1:]):
        return found
    drawn = finder.rng.randbytes(4).hex().encode()
    other, at, kind, of = (b"%s%s" % (letter, drawn) for letter in (b"z", b"v", b"t", b"r"))
    before = finder.data[function.start_byte : given[-1].start_byte]
    text = (
        b"func() bool { %(other)s := %(want)s; %(at)s := %(of)s.ValueOf(&%(other)s).Elem(); %(kind)s := %(at)s.Type(); "
        b"if %(at)s.Kind() == %(of)s.Interface && !%(at)s.IsNil() { %(kind)s = %(at)s.Elem().Type() }; "
        b"if %(kind)s.Kind() == %(of)s.Ptr { %(at)s.Set(%(of)s.New(%(kind)s.Elem())) } "
        b"else { %(at)s.Set(%(of)s.Zero(%(kind)s)) }; return %(before)s%(other)s)" + ZEROED
    )
    values = {b"other": other, b"at": at, b"kind": kind, b"of": of, b"want": finder.text(given[-1]), b"before": before}
    imported = Edit(package.end(), package.end(), b'\nimport %s "reflect"' % of)
    return [finder.replaced(call, text % values), imported]
