"""What operators and names of functions are mistaken for, in any of the languages."""

from __future__ import annotations

BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
COMPARE = {"==": "!=", "!=": "==", "===": "!==", "!==": "===", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
NEGATED = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}
OPERATE = {"+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "&": "|", "|": "&", "<<": ">>", ">>": "<<"}
OPERATE |= {"+=": "-=", "-=": "+=", "*=": "+=", "|=": "&=", "&=": "|="}
BOOLEAN = {"&&": "||", "||": "&&", "??": "||"}
ALIKE = [
    *("toLowerCase toUpperCase", "indexOf lastIndexOf", "startsWith endsWith", "trimStart trimEnd", "push unshift"),
    *("some every", "floor ceil", "min max", "shift pop", "HasPrefix HasSuffix", "ToLower ToUpper", "Floor Ceil"),
    *("TrimLeft TrimRight", "TrimPrefix TrimSuffix", "Index LastIndex", "Min Max", "IsUpper IsLower"),
    *("starts_with ends_with", "to_lowercase to_uppercase", "trim_start trim_end", "find rfind", "any all"),
    *("first last", "addFirst addLast", "getFirst getLast", "removeFirst removeLast"),
    *("isLetter isDigit", "IsLetter IsDigit"),
]
RENAMED = {a: b for pair in map(str.split, ALIKE) for a, b in (pair, pair[::-1])}
SLICED = frozenset({"slice", "substring", "substr", "subarray", "subList", "copyOfRange", "subSequence"})
COPIES = frozenset({"Clone", "from", "structuredClone", "copyOf", "slice", "clone", "concat"})
DEFAULTS = frozenset({"unwrap_or", "getOrDefault", "get", "GetOr", "orElse"})
UNDONE = frozenset(
    [
        *("delete", "clear", "pop", "push", "add", "remove", "set", "reset", "put", "insert", "append"),
        *("Reset", "Delete", "Add", "Set", "Remove", "push_back", "extend"),
    ]
)
