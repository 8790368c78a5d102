"""The operators of `making/operators.py` on syntax trees: what may be changed in a function, as edits of its text.

One edit changes the text of one expression or statement and leaves all else as it is written; what a removal leaves of
a line goes with it. Whether the result compiles is found out when it is run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from tree_sitter import Node

from crrl.making.trees import grammar
from crrl.making.trees.grammar import called, inner, otherwise, text
from crrl.making.trees.mistaken import (
    BOOLEAN,
    BOUNDARY,
    COMPARE,
    COPIES,
    DEFAULTS,
    NEGATED,
    OPERATE,
    RENAMED,
    SLICED,
    UNDONE,
)
from crrl.rewards.decoys.grammars import walk
from crrl.rewards.decoys.sites import Edit

Change = tuple[str, tuple[Edit, ...]]
OWN = frozenset({"this", "self"})
ERRORS = re.compile(r"\berr\b|panic|throw|Error")
NAMES = frozenset(  # what an identifier is the name of, or changed by
    [
        *("literal_element", "inc_statement", "dec_statement", "update_expression", "formal_parameters"),
        *("parameters", "array_pattern", "tuple_pattern", "scoped_identifier", "macro_invocation"),
    ]
)
CASE_LINES, BRANCH_LINES = 4, 12  # of a case that is left out, of branches that are swapped
NUMBER = re.compile(r"(\d+)([lLuU]|_?[iu](?:8|16|32|64|size))?$")


class Operators:
    """Of one function. `body`: where changes are; `go`: a variable that nothing reads does not compile."""

    def __init__(self, node: Node, body: Node, data: bytes, nested: list[Node], *, go: bool = False) -> None:
        self.node, self.body, self.data, self.go = node, body, data, go
        gone = {n.id for other in nested for n in walk(other)}
        self.nodes = [n for n in walk(node) if n.id not in gone]

    def changes(self) -> Iterator[Change]:
        for node in self.nodes:
            if node.start_byte >= self.body.start_byte:
                yield from self._at(node)
            elif node.type == "assignment_pattern":  # a parameter with a default
                yield from self._defaults(node.child_by_field_name("right"))

    def _at(self, node: Node) -> Iterator[Change]:
        kind = node.type
        if kind in ("binary_expression", "augmented_assignment_expression", "compound_assignment_expr"):
            yield from self._binary(node)
        elif kind == "assignment_pattern":
            yield from self._defaults(node.child_by_field_name("right"))
        elif kind in grammar.INTEGERS and (node.parent is None or "array_type" not in node.parent.type):
            yield from (("constant", (self._with(node, other),)) for other in self._numbers(node))
        elif kind in grammar.TRUTHS:
            yield "constant", (self._with(node, "false" if text(node) == "true" else "true"),)
        elif kind in grammar.IFS or kind == "ternary_expression":
            yield from self._branches(node)
        elif kind == "unary_expression" and text(node).startswith("!"):
            yield "negation", (self._with(node, text(node)[1:]),)
        elif kind in grammar.CASES:
            yield from self._case(node)
        elif kind == "slice_expression":
            bounds = [node.child_by_field_name(name) for name in ("start", "end")]
            yield from (("slice", (self._less(bound),)) for bound in bounds if self._computed(bound))
        elif kind == "range_expression":
            yield from self._range(node)
        elif kind in grammar.CALLS:
            yield from self._call(node)
        elif kind in ("array", "object") and node.named_child_count == 1:
            if (spread := node.named_children[0]).type == "spread_element":  # [...x], {...x}
                yield "missed_copy", (self._with(node, text(spread.named_children[0])),)
        elif kind in ("break_statement", "continue_statement", "break_expression", "continue_expression"):
            yield from self._loop(node)
        elif kind == "identifier":
            yield from self._variables(node)
        yield from self._removed(node)

    # Expressions ------------------------------------------------------------------------------------------------------

    def _binary(self, node: Node) -> Iterator[Change]:
        operator, left, right = (node.child_by_field_name(name) for name in ("operator", "left", "right"))
        if left is None or right is None:
            return
        if operator is None:  # `+=` of Rust is no field
            operator = node.children[1]
        word = text(operator)
        if word in BOUNDARY:
            yield "boundary", (self._with(operator, BOUNDARY[word]),)
        if word in COMPARE:
            yield "comparison", (self._with(operator, COMPARE[word]),)
        if word in OPERATE and not self._joins(node):
            yield "operator", (self._with(operator, OPERATE[word]),)
        if word in BOOLEAN:
            yield "boolean", (self._with(operator, BOOLEAN[word]),)
        if word in ("&&", "||"):
            yield from (("forgotten_condition", (self._with(node, text(side)),)) for side in (left, right))
        if word in ("??", "||"):
            yield from self._defaults(right)
        if word in ("-", "/", "%") and self._computed(left) and self._computed(right):
            yield "swapped", (self._with(left, text(right)), self._with(right, text(left)))
        if word in ("+", "-") and text(right) == "1" and self._computed(left):
            yield "slice", (self._with(node, text(left)),)

    def _joins(self, node: Node) -> bool:
        """Whether it is a sum of texts."""
        while node.parent is not None and node.parent.type == "binary_expression":
            node = node.parent
        return any(n.type in grammar.STRINGS for side in node.named_children for n in self._summands(side))

    def _summands(self, node: Node) -> Iterator[Node]:
        if node.type == "binary_expression":
            for side in node.named_children:
                yield from self._summands(side)
        else:
            yield node

    def _call(self, node: Node) -> Iterator[Change]:
        name, given = called(node), grammar.arguments(node)
        function = node.child_by_field_name("function") or node
        member = function.child_by_field_name(grammar.MEMBERS.get(function.type, ("", "name"))[1])
        owner = function.child_by_field_name(grammar.MEMBERS.get(function.type, ("object", ""))[0])
        if name in RENAMED and member is not None:
            yield "call", (self._with(member, RENAMED[name]),)
        if name in SLICED:
            yield from (("slice", (self._less(bound),)) for bound in given if self._computed(bound))
        if name in DEFAULTS and given:
            yield from self._defaults(given[-1])
        copied = given[0] if len(given) == 1 and self._computed(given[0]) else owner if not given else None
        if name in COPIES and copied is not None:
            yield "missed_copy", (self._with(node, text(copied)),)
        fresh = given[:1] and given[0].type in ("type_conversion_expression", "composite_literal")
        if name == "append" and fresh and [one.type for one in given[1:]] == ["variadic_argument"]:  # []T(nil), x...
            yield "missed_copy", (self._with(node, text(given[1].named_children[0])),)
        if len(given) == 2 and self._exchangeable(*given):
            yield "swapped", (self._with(given[0], text(given[1])), self._with(given[1], text(given[0])))
        if len(given) > 1 and node.type in ("call_expression", "new_expression") and self._script:
            yield "forgotten_argument", (Edit(given[-2].end_byte, given[-1].end_byte, b""),)

    def _exchangeable(self, one: Node, other: Node) -> bool:
        if text(one) == text(other) or not (self._computed(one) and self._computed(other)):
            return False
        return self._script or text(other) in self._alike(text(one))

    def _range(self, node: Node) -> Iterator[Change]:
        """Of Rust."""
        for child in node.children:
            if child.type in ("..", "..="):
                yield "boundary", (self._with(child, "..=" if child.type == ".." else ".."),)
                if (end := child.next_sibling) is not None and self._computed(end):
                    yield "slice", (self._less(end),)

    def _defaults(self, node: Node | None) -> Iterator[Change]:
        if node is None:
            return
        if node.type in grammar.INTEGERS:
            yield from (("default", (self._with(node, other),)) for other in self._numbers(node))
        elif node.type in grammar.TRUTHS:
            yield "default", (self._with(node, "false" if text(node) == "true" else "true"),)
        elif node.type in grammar.STRINGS and len(text(node)) == 2:
            yield "default", (self._with(node, f"{text(node)[0]} {text(node)[0]}"),)

    def _numbers(self, node: Node) -> list[str]:
        found = NUMBER.match(text(node))
        if found is None:
            return []
        values = {abs(int(found[1]) + step) for step in (1, -1)} - {int(found[1])}
        return [f"{value}{found[2] or ''}" for value in sorted(values)]

    def _computed(self, node: Node | None) -> bool:
        return node is not None and node.is_named and node.type not in grammar.LITERALS | grammar.CLOSURES

    def _less(self, bound: Node | None) -> Edit:
        """One less; without the offset where there is one."""
        assert bound is not None
        if bound.type == "binary_expression" and text(bound.child_by_field_name("right")) == "1":
            return self._with(bound, text(bound.child_by_field_name("left")))
        plain = bound.type in ("identifier", "binary_expression", *grammar.CALLS, *grammar.MEMBERS)
        return self._with(bound, f"{text(bound)} - 1" if plain else f"({text(bound)}) - 1")

    # Statements -------------------------------------------------------------------------------------------------------

    def _branches(self, node: Node) -> Iterator[Change]:
        condition = inner(node.child_by_field_name("condition"))
        first, second = node.child_by_field_name("consequence"), otherwise(node)
        if condition is None or first is None or "let" in condition.type:
            return
        if not text(condition).startswith("!") and (negated := self._negated(condition)):
            yield "negation", (self._with(condition, negated),)
        if second is None or second.end_point.row - first.start_point.row > BRANCH_LINES:
            return
        if node.type == "ternary_expression" or {first.type, second.type} <= grammar.BLOCKS:
            yield "swapped_branches", (self._with(first, text(second)), self._with(second, text(first)))
        elif second.type in grammar.IFS and (then := second.child_by_field_name("consequence")) is not None:
            yield "dropped_case", (Edit(first.end_byte, then.end_byte, b""),)  # else if

    def _negated(self, node: Node) -> str:
        """As one would write it; "" where another operator does that."""
        if node.type == "binary_expression":
            left, word, right = (text(node.child_by_field_name(name)) for name in ("left", "operator", "right"))
            if word in COMPARE:
                return f"{left} {NEGATED[word]} {right}" if word in NEGATED else ""
        plain = node.type in ("identifier", "call_expression", "method_invocation", *grammar.MEMBERS)
        return f"!{text(node)}" if plain else f"!({text(node)})"

    def _case(self, node: Node) -> Iterator[Change]:
        """A case, or one of its values."""
        values = node.child_by_field_name("value")
        if node.type == "expression_case" and values is not None and values.named_child_count > 1:
            for value, after in zip(values.named_children, [*values.named_children[1:], None], strict=True):
                before = value.prev_named_sibling
                if after is not None:
                    yield "dropped_case", (Edit(value.start_byte, after.start_byte, b""),)
                elif before is not None:
                    yield "dropped_case", (Edit(before.end_byte, value.end_byte, b""),)
        if node.end_point.row - node.start_point.row < CASE_LINES and (gone := self._lines(node)) is not None:
            yield "dropped_case", (gone,)

    def _loop(self, node: Node) -> Iterator[Change]:
        around = grammar.above(node, grammar.LOOPS | grammar.SWITCHES | grammar.CLOSURES, self.node)
        word, other = ("break", "continue") if node.type.startswith("break") else ("continue", "break")
        if around is not None and around.type in grammar.LOOPS and text(node).rstrip(";") == word:
            yield "loop", (self._with(node, text(node).replace(word, other)),)

    def _removed(self, node: Node) -> Iterator[Change]:
        """A case that ends early; the upkeep of an object's state; what a loop does. Each with its lines."""
        if node.parent is None or not self._is_statement(node) or (gone := self._lines(node)) is None:
            return
        what = node.named_children[0] if node.type == "expression_statement" and node.named_children else node
        if what.type in grammar.IFS:
            short = what.end_point.row - what.start_point.row < CASE_LINES
            if short and otherwise(what) is None and not ERRORS.search(text(what)):
                yield "dropped_case", (gone,)
        elif node.start_point.row == node.end_point.row and what.type in grammar.ASSIGNMENTS | grammar.CALLS:
            if self._keeps_state(what):
                yield "stale_state", (gone,)
            elif grammar.above(node, grammar.LOOPS, self.node) is not None:
                yield "dropped", (gone,)

    def _is_statement(self, node: Node) -> bool:
        return node.parent is not None and node.parent.type in grammar.STATEMENTS

    def _keeps_state(self, node: Node) -> bool:
        if re.search(r"onstructor|__init__|^new$", self._name):
            return False
        if node.type in grammar.ASSIGNMENTS:
            target = node.child_by_field_name("left") or (node.named_children[0] if node.named_children else node)
            while target.type in grammar.INDEXED or target.type == "expression_list":
                target = target.named_children[0]
            return target.type in grammar.MEMBERS and self._root(target) in self._owners
        if node.type in grammar.CALLS and called(node) in UNDONE:
            function = node.child_by_field_name("function") or node
            if text(function) == "delete":  # of Go
                return self._root(grammar.arguments(node)[0]) in self._owners if grammar.arguments(node) else False
            owner = function.child_by_field_name(grammar.MEMBERS.get(function.type, ("object", ""))[0])
            return owner is not None and owner.type in grammar.MEMBERS and self._root(owner) in self._owners
        return False

    def _root(self, node: Node) -> str:
        while node.type in grammar.MEMBERS or node.type in grammar.INDEXED:
            node = node.named_children[0]
        return text(node)

    @cached_property
    def _owners(self) -> frozenset[str]:
        """What the function's own object is called."""
        receiver = self.node.child_by_field_name("receiver")
        names = [text(n) for n in walk(receiver) if n.type == "identifier"] if receiver is not None else []
        return OWN | set(names)

    @cached_property
    def _name(self) -> str:
        return text(self.node.child_by_field_name("name"))

    @cached_property
    def _script(self) -> bool:
        return any(n.type in ("statement_block", "arrow_function") for n in self.nodes)

    # Variables --------------------------------------------------------------------------------------------------------

    def _variables(self, node: Node) -> Iterator[Change]:
        """Another variable that is used alike, and is in sight."""
        name, parent = text(node), node.parent
        if name not in self._declared or parent is None or not self._is_read(node):
            return
        if self.go and self._reads[name] < 2 and name not in self._parameters:
            return
        beside = {text(child) for child in parent.named_children}  # not `a < a`
        for other in sorted(self._alike(name) - beside):
            if any(node.start_byte in sight for sight in self._declared[other]):
                yield "variable", (self._with(node, other),)

    def _is_read(self, node: Node) -> bool:
        parent = node.parent
        if parent is None or parent.type in NAMES or _is_target(parent):
            return False
        if parent.type in grammar.DECLARED and _is_field(parent, grammar.DECLARED[parent.type], node):
            return False
        if parent.type in grammar.ASSIGNMENTS and _is_field(parent, "left", node):
            return False
        return not (parent.type in grammar.CALLS and _is_field(parent, "function", node))

    @cached_property
    def _reads(self) -> dict[str, int]:
        reads: dict[str, int] = defaultdict(int)
        for node in self.nodes:
            if node.type == "identifier" and self._is_read(node):
                reads[text(node)] += 1
        return reads

    @cached_property
    def _parameters(self) -> frozenset[str]:
        given = self.node.child_by_field_name("parameters")
        return frozenset(text(n) for n in walk(given) if n.type == "identifier") if given is not None else frozenset()

    @cached_property
    def _declared(self) -> dict[str, list[range]]:
        """Variable -> the bytes where it is in sight."""
        found: dict[str, list[range]] = defaultdict(list)
        for name in self._parameters:
            found[name].append(range(self.body.start_byte, self.body.end_byte))
        for node in self.nodes:
            if node.type in grammar.DECLARED and node.start_byte >= self.body.start_byte:
                scope = grammar.above(node, grammar.BLOCKS | grammar.LOOPS, self.node) or self.body
                scope = node if node.type in grammar.LOOPS else scope
                if "parameter" in node.type:
                    scope = grammar.above(node, grammar.CLOSURES, self.node) or scope
                start = node.start_byte if scope.id == node.id else node.end_byte
                for field in node.children_by_field_name(grammar.DECLARED[node.type]):
                    for name_ in walk(field):
                        if name_.type == "identifier":
                            found[text(name_)].append(range(start, scope.end_byte))
        return found

    def _alike(self, name: str) -> set[str]:
        own = self._uses.get(name, set())
        return {other for other, uses in self._uses.items() if other != name and other in self._declared and own & uses}

    @cached_property
    def _uses(self) -> dict[str, set[str]]:
        """Variable -> how it is used: those that share a use are likely of one type."""
        uses: dict[str, set[str]] = defaultdict(set)
        for node in self.nodes:
            kind = node.type
            if kind in ("parameter_declaration", "formal_parameter", "parameter", "required_parameter"):
                type_ = text(node.child_by_field_name("type"))
                for field in node.children_by_field_name(grammar.DECLARED[kind]):
                    if type_:
                        uses[text(field)].add(f"is {type_}")
            if kind != "identifier" or node.parent is None:
                continue
            name, parent = text(node), node.parent
            if parent.type in grammar.INDEXED or parent.type == "slice_expression":
                first = parent.named_children[0].id == node.id
                uses[name].add("indexed" if first else "index")
            elif parent.type in grammar.MEMBERS and parent.named_children[0].id == node.id:
                uses[name].add(f".{text(parent.named_children[-1])}")
            elif parent.type == "binary_expression":
                operator = text(parent.child_by_field_name("operator"))
                if operator in BOUNDARY or operator in OPERATE:
                    uses[name].add("ordered" if operator in BOUNDARY else "reckoned with")
            elif parent.parent is not None and parent.parent.type in grammar.CALLS:
                place = [n.id for n in parent.named_children].index(node.id)
                uses[name].add(f"{called(parent.parent)}() {place}")
        return uses

    # Text -------------------------------------------------------------------------------------------------------------

    def _with(self, node: Node, new: str) -> Edit:
        return Edit(node.start_byte, node.end_byte, new.encode())

    def _lines(self, node: Node) -> Edit | None:
        """The lines of `node` gone; None where they hold something else, too."""
        first = self.data.rfind(b"\n", 0, node.start_byte) + 1
        last = self.data.find(b"\n", node.end_byte)
        last = len(self.data) if last < 0 else last + 1
        around = self.data[first : node.start_byte] + self.data[node.end_byte : last]
        return Edit(first, last, b"") if around.strip(b" \t\r\n;,") == b"" else None


def _is_field(parent: Node, name: str, node: Node) -> bool:
    return any(child.id == node.id for child in parent.children_by_field_name(name))


def _is_target(node: Node) -> bool:
    """Whether it is the list of what is assigned to."""
    parent = node.parent
    if parent is None or node.type != "expression_list":
        return False
    return any(_is_field(parent, name, node) for name in ("left", "name"))
