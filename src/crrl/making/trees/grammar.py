"""What the nodes of the tree-sitter grammars are called where Go, JavaScript, TypeScript, Rust and Java differ."""

from __future__ import annotations

from tree_sitter import Node

FUNCTIONS = frozenset(
    [
        *("function_declaration", "generator_function_declaration", "method_declaration", "constructor_declaration"),
        *("method_definition", "function_item"),
    ]
)
CLOSURES = frozenset(
    [
        *("arrow_function", "function_expression", "generator_function"),
        *("func_literal", "closure_expression", "lambda_expression"),
    ]
)
NAMED_BY = {  # a closure's parent that names it: the field with the name
    "variable_declarator": "name",
    "assignment_expression": "left",
    "pair": "key",
    "field_definition": "property",
    "public_field_definition": "name",
}
OWNERS = {  # what a function may be a member of: the field with its name
    "class_declaration": "name",
    "class": "name",
    "abstract_class_declaration": "name",
    "interface_declaration": "name",
    "enum_declaration": "name",
    "record_declaration": "name",
    "impl_item": "type",
    "trait_item": "name",
}
BLOCKS = frozenset({"block", "statement_block", "constructor_body"})
STATEMENTS = BLOCKS | frozenset({"statement_list", "expression_case", "default_case", "switch_case", "switch_default"})
IFS = frozenset({"if_statement", "if_expression"})
LOOPS = frozenset(
    [
        *("for_statement", "for_in_statement", "while_statement", "do_statement", "enhanced_for_statement"),
        *("for_expression", "while_expression", "loop_expression"),
    ]
)
SWITCHES = frozenset(
    [
        *("switch_statement", "switch_expression", "expression_switch_statement", "type_switch_statement"),
        *("select_statement", "match_expression"),
    ]
)
CASES = frozenset({"expression_case", "switch_case", "switch_block_statement_group", "match_arm"})
CALLS = frozenset({"call_expression", "method_invocation", "new_expression", "object_creation_expression"})
MEMBERS = {  # node -> (fields of owner, of member)
    "selector_expression": ("operand", "field"),
    "member_expression": ("object", "property"),
    "field_expression": ("value", "field"),
    "field_access": ("object", "field"),
}
INDEXED = {  # node -> (fields of what is indexed, of the index)
    "index_expression": ("operand", "index"),
    "subscript_expression": ("object", "index"),
    "array_access": ("array", "index"),
}
ASSIGNMENTS = frozenset(
    [
        *("assignment_statement", "assignment_expression", "augmented_assignment_expression"),
        *("compound_assignment_expr", "inc_statement", "dec_statement", "update_expression"),
    ]
)
INTEGERS = frozenset({"int_literal", "number", "integer_literal", "decimal_integer_literal"})
STRINGS = frozenset(
    [
        *("interpreted_string_literal", "raw_string_literal", "string", "template_string", "string_literal"),
        *("rune_literal", "char_literal", "character_literal"),
    ]
)
TRUTHS = frozenset({"true", "false", "boolean_literal"})
LITERALS = INTEGERS | STRINGS | TRUTHS | frozenset({"float_literal", "decimal_floating_point_literal", "nil", "null"})
DECLARED = {  # node -> the field with the names that it declares
    "parameter_declaration": "name",
    "short_var_declaration": "left",
    "var_spec": "name",
    "range_clause": "left",
    "variable_declarator": "name",
    "for_in_statement": "left",
    "required_parameter": "pattern",
    "optional_parameter": "pattern",
    "assignment_pattern": "left",
    "parameter": "pattern",
    "let_declaration": "pattern",
    "for_expression": "pattern",
    "formal_parameter": "name",
    "enhanced_for_statement": "name",
}


def text(node: Node | None) -> str:
    return node.text.decode("utf-8", "replace") if node is not None and node.text is not None else ""


def called(node: Node) -> str:
    """The name of what a call calls, without its owner."""
    name = node.child_by_field_name("name") or node.child_by_field_name("constructor")
    function = node.child_by_field_name("function") or name or node.child_by_field_name("type")
    if function is not None and function.type in MEMBERS:
        function = function.child_by_field_name(MEMBERS[function.type][1])
    return text(function)


def arguments(node: Node) -> list[Node]:
    given = node.child_by_field_name("arguments")
    return [child for child in given.named_children if "comment" not in child.type] if given is not None else []


def inner(node: Node | None) -> Node | None:
    """Without the parentheses around it."""
    while node is not None and node.type == "parenthesized_expression" and node.named_child_count == 1:
        node = node.named_children[0]
    return node


def otherwise(node: Node) -> Node | None:
    """The block or the statement of an `else`."""
    found = node.child_by_field_name("alternative")
    if found is not None and found.type == "else_clause":
        return found.named_children[-1] if found.named_children else None
    return found


def above(node: Node, kinds: frozenset[str], within: Node) -> Node | None:
    """The nearest of these around `node`, below `within`."""
    at = node.parent
    while at is not None and at.id != within.id:
        if at.type in kinds:
            return at
        at = at.parent
    return None
