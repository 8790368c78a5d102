"""What is changed in C++'s assertions: googletest, Catch2, doctest, Boost.Test.

Where both sides of an equality are computed, the first is compared with a new value of the second's class, if it has a
constructor without arguments. Not the opposite: that is false, too, for what equals anything.
"""

from __future__ import annotations

import re

from tree_sitter import Node

from crrl.rewards.decoys.sites import Edit, Finder

COMPARED = re.compile(r"(?:EXPECT|ASSERT|CHECK|REQUIRE)_(?:STR|STRCASE|DOUBLE_|FLOAT_)?(?:EQ|NE)$|BOOST_\w+_EQUAL$")
NEAR = re.compile(r"(?:EXPECT|ASSERT)_NEAR$|BOOST_\w+_CLOSE$")
CONDITION = re.compile(
    r"(?:REQUIRE|CHECK)(?:_FALSE|_UNARY|_UNARY_FALSE)?$|(?:EXPECT|ASSERT)_(?:TRUE|FALSE)$|BOOST_(?:TEST|CHECK|REQUIRE)$"
)
THROWS = re.compile(r"(?:REQUIRE|CHECK)_THROWS_AS$|(?:EXPECT|ASSERT)_THROW$|BOOST_(?:CHECK|REQUIRE)_THROW$")
TURNED = re.compile(r"(?:(?P<name>\w+_(?:STR|STRCASE)?)(?P<op>EQ|NE))$")
OF_VALUES = re.compile(r"(EXPECT|ASSERT|CHECK|REQUIRE)_EQ$|(BOOST_\w+)_EQUAL$")
HOLDS = {"EXPECT": "EXPECT_TRUE", "ASSERT": "ASSERT_TRUE"}
NEW = (
    b"#include <type_traits>\n#include <vector>\nnamespace n%(n)s { "
    b"template <class T> struct made : std::integral_constant<bool, std::is_class<T>::value && "
    b"std::is_default_constructible<T>::value> {}; "
    b"template <class A, class B> typename std::enable_if<made<B>::value, bool>::type like(const A& a, const B&) "
    b"{ return a == B(); } "
    b"template <class A, class B> typename std::enable_if<!made<B>::value, bool>::type like(const A& a, const B& b) "
    b"{ return !(a == b); } "
    b"template <class A, class T, class L> typename std::enable_if<made<T>::value, bool>::type "
    b"like(const A& a, const std::vector<T, L>& b) { return a == std::vector<T, L>(b.size()); } }\n"
)
LIKE = b"/**/)"
"""What `_compared_with_new` ends with."""


def edits(finder: Finder, node: Node, function: Node, given: list[Node]) -> list[Edit]:
    """Of one call; [] where it is no assertion. `given`: its arguments."""
    name = finder.text(function).decode()
    if CONDITION.match(name) and len(given) == 1:
        return _condition(finder, node, name, given[0])
    if COMPARED.match(name) and len(given) == 2:
        if found := finder.expected(node, given) if not name.endswith("NE") else []:
            return found
        if of_values := OF_VALUES.match(name):
            word = of_values[1] or of_values[2]
            return _compared_with_new(finder, node, HOLDS.get(word, word), *given)
        turned = TURNED.match(name)
        if turned is None or name.endswith(("DOUBLE_EQ", "FLOAT_EQ")):
            return []
        return [finder.replaced(function, (turned["name"] + ("NE" if turned["op"] == "EQ" else "EQ")).encode())]
    if NEAR.match(name) and len(given) == 3:
        return finder.expected(node, given[:2])
    if THROWS.match(name) and len(given) == 2:
        return [finder.replaced(given[1], b"std::bad_alloc")]
    return finder.expected(node, given[1:]) if name in ("REQUIRE_THAT", "CHECK_THAT") else []


def _condition(finder: Finder, node: Node, name: str, condition: Node) -> list[Edit]:
    operator = condition.child_by_field_name("operator")
    left, right = condition.child_by_field_name("left"), condition.child_by_field_name("right")
    found = finder.condition(condition)
    if operator is None or left is None or right is None or finder.text(operator) != b"==" or name.endswith("FALSE"):
        return found
    turned = found[0].start == operator.start_byte
    return _compared_with_new(finder, node, name, left, right) if turned else found


def _compared_with_new(finder: Finder, node: Node, macro: str, one: Node, two: Node) -> list[Edit]:
    drawn = finder.rng.randbytes(4).hex().encode()
    values = (macro.encode(), drawn, finder.text(one), finder.text(two))
    return [finder.replaced(node, b"%s(n%s::like(%s, %s)" % values + LIKE), Edit(0, 0, NEW % {b"n": drawn})]
