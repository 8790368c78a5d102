"""Sites of tests in Java, JavaScript, TypeScript, Go, Rust and C++, found on their syntax trees.

As in Python, a literal on the expected side is changed where there is one,
in the assertion or in what the test names there; else the condition is turned round. What
comes out must still compile: a copy that does not is no decoy (`control.calibrate` leaves it out).

To add a language: its grammar in `grammars.py`, and what its assertions look like in a file of its own, which
`_Finder.edits` calls: `java.py`, `go.py`, `rust.py`, `cpp.py`, and `script.py` for JavaScript and TypeScript.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from tree_sitter import Node

from crrl.rewards.decoys import cpp, go, java, rust, script
from crrl.rewards.decoys.grammars import GRAMMARS, parser, walk
from crrl.rewards.decoys.literals import altered_number, altered_text
from crrl.rewards.decoys.sites import Edit, Site

NUMBERS = frozenset(
    [
        "decimal_integer_literal",
        "hex_integer_literal",
        "decimal_floating_point_literal",
        "number",
        "int_literal",
        "float_literal",
        "integer_literal",
        "number_literal",
    ]
)
TEXTS = frozenset({"string_fragment", "interpreted_string_literal_content", "string_content"})
STRINGS = frozenset({"string_literal", "string", "interpreted_string_literal"})
CHARACTERS = frozenset({"character_literal", "char_literal", "rune_literal"})
BOOLEANS = {b"true": b"false", b"false": b"true"}
IMPURE = frozenset(
    [
        "identifier",
        "method_invocation",
        "call_expression",
        "member_expression",
        "selector_expression",
        "field_access",
        "field_expression",
        "macro_invocation",
        "lambda_expression",
        "arrow_function",
        "object_creation_expression",
    ]
)
FLIPPED = {b"==": b"!=", b"===": b"!==", b"<": b">=", b">": b"<="}
FLIPPED |= {other: word for word, other in FLIPPED.items()}
DECLARATORS = {
    "variable_declarator": ("name", "value"),
    "short_var_declaration": ("left", "right"),
    "init_declarator": ("declarator", "value"),
    "let_declaration": ("pattern", "value"),
}
FUNCTIONS = frozenset({"method_declaration", "function_declaration", "function_item", "function_definition"})
SCOPES = FUNCTIONS | {"arrow_function", "compound_statement"}
CALLS = frozenset({"method_invocation", "call_expression", "macro_invocation"})
MAKERS = java.MATCHERS | frozenset(["of", "asList", "valueOf", "from", "vec", "singletonList"])
EXPECTED = re.compile(rb"(?i)want|expect|^exp|result|output|^out$")
READABLE = (
    b"!=",
    b"==",
    b".not",
    b"assertNotEquals",
    b"assertNotSame",
    b"assert_ne",
    b"_NE",
    b"NotEqual",
    b"otStrictEqual",
    b"tDeepEqual",
    java.EITHER,
    go.ZEROED.strip(),
    rust.TOLD.strip(),
    cpp.LIKE,
)
C_UNITS = re.compile(rb"(?:\w*TEST_CASE\w*|SCENARIO)\(\s*\"((?:[^\"\\]|\\.)*)\"")
C_NAMES = re.compile(rb"[^(]*\(\s*\w+\s*,\s*(\w+)\s*\)|BOOST_\w*TEST_CASE\w*\(\s*(\w+)")
"""TEST(Suite, name) of googletest; BOOST_AUTO_TEST_CASE(name)."""


def find(suffix: str, data: bytes, rng: random.Random) -> list[Site]:
    """What can be changed in a file of the language. `rng`: draws the values, never the places."""
    sites: list[Site] = []
    try:
        data.decode()
    except UnicodeDecodeError:
        return sites
    finder = _Finder(suffix, data, rng)
    for node in finder.nodes:
        for edits in finder.edits(node):
            if edits:
                unit, at = finder.unit(node)
                sites.append(Site(unit, tuple(edits), edits[0].text.strip().endswith(READABLE), at))
    return sites


class _Finder:
    def __init__(self, suffix: str, data: bytes, rng: random.Random) -> None:
        self.data, self.rng = data, rng
        self.tree = parser(suffix).parse(data)
        self.nodes = list(walk(self.tree.root_node))
        self.java, self.go, self.rust = (suffix == s for s in (".java", ".go", ".rs"))
        self.cpp = GRAMMARS[suffix][0] == "tree_sitter_cpp"

    def edits(self, node: Node) -> Iterator[list[Edit]]:
        if self.go and node.type == "if_statement":
            yield go.check(self, node)
        elif node.type == "macro_invocation":
            yield rust.edits(self, node)
        elif self.java and node.type == "element_value_pair" and self.field(node, "key") == b"expected":
            value = node.child_by_field_name("value")
            yield [self.replaced(value, self.rng.choice(java.EXCEPTIONS))] if value is not None else []
        elif node.type in ("method_invocation", "call_expression"):
            yield self._call(node)
        elif (
            node.type == "member_expression" and node.parent is not None and node.parent.type == "expression_statement"
        ):
            yield script.word_edits(self, node)

    # Assertions, by language ----------------------------------------------------------------------

    def _call(self, node: Node) -> list[Edit]:
        arguments = node.child_by_field_name("arguments")
        if arguments is None:
            return []
        given = [child for child in arguments.named_children if "comment" not in child.type]
        if self.java:
            return java.edits(self, node, given)
        function = node.child_by_field_name("function")
        if function is None:
            return []
        if self.cpp:
            return cpp.edits(self, node, function, given)
        if self.go:
            return go.edits(self, function, given)
        return [] if self.rust else script.edits(self, function, given)

    # Conditions and values ------------------------------------------------------------------------

    def condition(self, condition: Node) -> list[Edit]:
        """A condition with another outcome: one of the sides of a comparison, or its operator, or all of it."""
        operator = condition.child_by_field_name("operator")
        left, right = condition.child_by_field_name("left"), condition.child_by_field_name("right")
        if condition.type != "binary_expression" or operator is None or left is None or right is None:
            return self.negated(condition)
        word = self.text(operator)
        if word in (b"==", b"!=") and (edits := self.expected(condition, [right, left])):
            return edits
        return [self.replaced(operator, FLIPPED[word])] if word in FLIPPED else self.negated(condition)

    def negated(self, node: Node) -> list[Edit]:
        return [self.replaced(node, b"!(" + self.text(node) + b")")]

    def expected(self, at: Node, sides: list[Node]) -> list[Edit]:
        """A literal of the plainest side changed; none of one that computes: nobody knows what it would give then."""
        for side in sides:
            leaves = self.literals(side)
            if leaves and not any(node.type in IMPURE for node in walk(side)):
                return [self.altered(self.rng.choice(leaves))]
        for side in sides:
            if edits := self.from_names(at, side):
                return edits
        for side in sides:
            if not self._computes(side) and (leaves := self.literals(side)):
                return [self.altered(self.rng.choice(leaves))]
        return []

    def _computes(self, side: Node) -> bool:
        """Whether the code under test may have a part in it: calls, but for those of types and collections."""
        called = [
            n.child_by_field_name("name") or n.child_by_field_name("function") for n in walk(side) if n.type in CALLS
        ]
        words = [re.split(r"\W+", self.text(n).decode())[-1] for n in called if n is not None]
        return any(word not in MAKERS and not word[:1].isupper() for word in words)

    def from_names(self, at: Node, side: Node) -> list[Edit]:
        """What a variable of the test, or a field of its table of cases, was given."""
        if side.type in ("selector_expression", "field_expression"):
            field = side.child_by_field_name("field")
            if field is None or not EXPECTED.search(self.text(field)):
                return []
            rows = [n for n in self.nodes if n.type == "keyed_element" and n.named_child_count == 2]
            rows = [n for n in rows if self.text(n.named_children[0]) == self.text(field)]
            cells = [self.literals(row.named_children[1]) for row in rows]
            return [self.altered(self.rng.choice(found)) for found in cells] if rows and all(cells) else []
        if side.type != "identifier":
            return []
        values = []
        reads = [n for n in walk(self.function(at)) if n.type == "identifier" and self.text(n) == self.text(side)]
        if len(reads) > 2:  # it is an input, too
            return []
        for node in walk(self.function(at)):
            if node.type in DECLARATORS:
                name, value = (node.child_by_field_name(field) for field in DECLARATORS[node.type])
                if name is not None and value is not None and self.text(name) == self.text(side):
                    values.append(value)
        leaves = [leaf for value in values if not self._computes(value) for leaf in self.literals(value)]
        return [self.altered(self.rng.choice(leaves))] if leaves and len(values) == 1 else []

    def literals(self, node: Node) -> list[Node]:
        found = []
        for leaf in walk(node):
            text = self.text(leaf)
            empty = leaf.type in STRINGS and len(text) == 2
            spelled = leaf.type in CHARACTERS and len(text) == 3 and text[1:2].isalnum()
            truth = text in BOOLEANS and leaf.child_count == 0
            known = leaf.type in NUMBERS and altered_number(text.decode(), self.rng) is not None
            if known or leaf.type in TEXTS or empty or spelled or truth:
                found.append(leaf)
        return found

    def altered(self, leaf: Node) -> Edit:
        text = self.text(leaf)
        if leaf.type in NUMBERS:
            return self.replaced(leaf, (altered_number(text.decode(), self.rng) or "").encode())
        if leaf.type in TEXTS:
            return self.replaced(leaf, altered_text(text.decode(), self.rng).encode())
        if text in BOOLEANS:
            return self.replaced(leaf, BOOLEANS[text])
        inner = altered_text(text[1:-1].decode(), self.rng)
        return self.replaced(leaf, text[:1] + inner.encode() + text[-1:])

    # Places ---------------------------------------------------------------------------------------

    def unit(self, node: Node) -> tuple[str, int]:
        """The name of the test around `node`, function, method, or the title that it is given; where it begins."""
        at: Node | None = node
        while at is not None:
            if at.type in ("method_declaration", "function_declaration", "function_item"):
                return self.field(at, "name").decode(), at.start_byte
            if at.type == "function_definition":
                found = C_NAMES.match(self.text(at))
                return (found[1] or found[2]).decode() if found else "", at.start_byte
            if at.type == "compound_statement" and at.prev_named_sibling is not None:
                found = C_UNITS.match(self.text(at.prev_named_sibling))
                if found:
                    return found[1].decode(), at.start_byte
            if at.type == "call_expression" and not self.cpp:
                found = re.match(rb"(?:test|it|specify)(?:\.\w+)*\(\s*(['\"`])(.*?)\1", self.text(at), re.DOTALL)
                if found:
                    return found[2].decode(), at.start_byte
            at = at.parent
        return "", 0

    def function(self, node: Node) -> Node:
        """What `node`'s variables are looked for in."""
        at = node
        while at.parent is not None and at.type not in SCOPES:
            at = at.parent
        return at

    def replaced(self, node: Node, text: bytes) -> Edit:
        return Edit(node.start_byte, node.end_byte, text)

    def text(self, node: Node) -> bytes:
        return self.data[node.start_byte : node.end_byte]

    def field(self, node: Node, name: str) -> bytes:
        child = node.child_by_field_name(name)
        return self.text(child) if child is not None else b""
