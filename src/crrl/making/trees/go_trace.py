"""Test files in Go that note the calls they make of the project: arguments and results.

Results go through a generic function of the call's own, arguments that are variables through another; both stand in
test files beside (`-gcflags=-lang=go1.18` compiles them in older modules, too). Lines stay where they are.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping

from tree_sitter import Node

from crrl.making.tracing import Call, Trace
from crrl.making.trees import grammar
from crrl.making.trees.grammar import text
from crrl.making.trees.scope import UNKNOWN_ARGUMENT
from crrl.making.trees.units import unit_at, units
from crrl.rewards.decoys.grammars import parser, walk

FILE = ".crrl/trace.jsonl"
MOST_RESULTS = 4
CONSTANT = frozenset({"identifier", "selector_expression"})  # where no statement makes them
NOTED = frozenset({"identifier", "selector_expression", "index_expression", "slice_expression", "composite_literal"})
POINTER = re.compile(r"\(0x[0-9a-f]+\)|\b0xc[0-9a-f]{6,}\b")
NIL = re.compile(r"^<nil>$|^\(\*[\w.]+\)\(nil\)$")
PACKAGE = re.compile(rb"^package (\w+)", re.MULTILINE)
RECORDER = """package PACKAGE

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"unicode/utf8"
)

var crrlLock sync.Mutex
var crrlArgs = map[int]map[int]string{}

func crrlTell(value interface{}) string {
	place := reflect.ValueOf(value)
	pointer := place.Kind() == reflect.Ptr
	if err, ok := value.(error); ok && !(pointer && place.IsNil()) {
		return fmt.Sprintf("error(%q)", err.Error())
	}
	if pointer && !place.IsNil() {
		place = place.Elem()
	}
	if text, ok := value.(fmt.Stringer); ok && !(pointer && place.Kind() == reflect.Ptr) {
		return fmt.Sprintf("%s(%q)", strings.TrimLeft(fmt.Sprintf("%T", value), "*"), text.String())
	}
	if place.Kind() == reflect.Struct {
		for field := 0; field < place.NumField(); field++ {
			if place.Type().Field(field).PkgPath != "" { // what users do not see
				return fmt.Sprintf("<%s>", place.Type())
			}
		}
	}
	if pointer && place.Kind() != reflect.Ptr {
		return fmt.Sprintf("&%#v", place.Interface())
	}
	if bytes, ok := value.([]byte); ok && bytes != nil && utf8.Valid(bytes) {
		return fmt.Sprintf("[]byte(%q)", bytes)
	}
	if place.IsValid() && place.Kind() >= reflect.Uint && place.Kind() <= reflect.Uint64 {
		return fmt.Sprint(value)
	}
	return fmt.Sprintf("%#v", value)
}

func crrlA[T any](site int, place int, value T, receiver ...interface{}) T {
	crrlLock.Lock()
	defer crrlLock.Unlock()
	if crrlArgs[site] == nil {
		crrlArgs[site] = map[int]string{}
	}
	for _, own := range receiver {
		crrlArgs[site][-1] = crrlTell(own)
	}
	crrlArgs[site][place] = crrlTell(value)
	return value
}

func crrlNote(site int, results ...interface{}) {
	crrlLock.Lock()
	defer crrlLock.Unlock()
	told := []string{}
	for _, result := range results {
		told = append(told, crrlTell(result))
	}
	line, _ := json.Marshal(map[string]interface{}{"site": SITES[site], "args": crrlArgs[site], "results": told})
	file, err := os.OpenFile("/workspace/FILE", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		file.Write(append(line, '\\n'))
		file.Close()
	}
}
"""


def results(sources: Mapping[str, bytes]) -> dict[str, int]:
    """Name of a function, or of a method with a dot before it -> how many results all of that name have."""
    found: dict[str, set[int]] = {}
    for data in sources.values():
        for node in walk(parser(".go").parse(data).root_node):
            if node.type in ("function_declaration", "method_declaration"):
                result = node.child_by_field_name("result")
                number = 0 if result is None else 1
                if result is not None and result.type == "parameter_list":
                    groups = [n for n in result.named_children if n.type == "parameter_declaration"]
                    number = sum(max(1, len(group.children_by_field_name("name"))) for group in groups)
                kind = "." if node.type == "method_declaration" else ""
                found.setdefault(kind + text(node.child_by_field_name("name")), set()).add(number)
    return {name: next(iter(numbers)) for name, numbers in found.items() if len(numbers) == 1}


def traced(
    tests: Mapping[str, bytes], known: Mapping[str, int], module: str, *, arguments: bool
) -> dict[str, bytes] | None:
    """Path -> text of the test files and the recorders beside; None where they call nothing of the project. `known`:
    what `results` gives; `module`: the project's path."""
    made: dict[str, bytes] = {}
    sites: dict[tuple[str, str], list[tuple[str, int]]] = {}  # folder and package -> what tells a call, its results
    for path, data in tests.items():
        package = found[1].decode() if (found := PACKAGE.search(data)) else "main"
        own = sites.setdefault((posixpath.dirname(path), package), [])
        edits: list[tuple[int, int, str]] = []
        root = parser(".go").parse(data).root_node
        variables = _variables(root)
        for node, name, number in _calls(root, known, variables, module):
            given = grammar.arguments(node)
            told = [text(one) if _literal(one) else f"{UNKNOWN_ARGUMENT}{text(one)}" for one in given]
            edits.append((node.start_byte, node.start_byte, f"crrlR{len(own)}("))
            owner = name.rpartition(".")[0]
            receiver = f", {owner}" if owner in variables else ""
            for place, one in enumerate(given):
                if one.type in CONSTANT and _root(one) not in variables:
                    told[place] = text(one)
                elif arguments and one.type in NOTED:
                    told[place] = ""
                    edits.append((one.start_byte, one.start_byte, f"crrlA({len(own)}, {place}, "))
                    edits.append((one.end_byte, one.end_byte, f"{receiver})"))
            edits.append((node.end_byte, node.end_byte, ")"))
            site = {"path": path, "line": node.start_point.row + 1, "name": name, "told": told}
            own.append((json.dumps(site), number))
        if edits:
            made[path] = _with(data, edits)
    if not made:
        return None
    for (folder, package), own in sites.items():
        if own:
            listed = "".join(f"\t{json.dumps(site)},\n" for site, _ in own)
            text_ = RECORDER.replace("PACKAGE", package).replace("FILE", FILE).replace("SITES", "crrlSites")
            text_ += f"\nvar crrlSites = []string{{\n{listed}}}\n"
            text_ += "".join(_function(number, count) for number, (_, count) in enumerate(own))
            made[posixpath.join(folder, f"crrl_{package}_trace_test.go")] = text_.encode()
    return made


def read(tests: Mapping[str, bytes], found: str) -> dict[str, Trace]:
    """Name of a test -> its calls, in the order in which they ended; under "" those outside of any."""
    known = {path: units(path, data) for path, data in tests.items()}
    calls: dict[str, list[Call]] = {}
    for line in found.splitlines():
        try:
            entry = json.loads(line)
            site = json.loads(entry["site"])
        except ValueError:  # cut short
            continue
        noted = entry["args"] or {}
        values = [told or _plain(noted.get(str(place), "")) for place, told in enumerate(site["told"])]
        args = [
            (UNKNOWN_ARGUMENT if value.startswith(UNKNOWN_ARGUMENT) else "*", value.removeprefix(UNKNOWN_ARGUMENT))
            for value in values
        ]
        owner = site["name"].rpartition(".")[0]
        unit = unit_at(known[site["path"]], site["line"])
        receiver = _plain(noted.get("-1", "<>"))
        args = [("self", owner if "<" in receiver else receiver), *args] if owner else args
        returned = ", ".join(_plain(result) for result in entry["results"])
        call = Call(site["name"], site["path"], site["line"], tuple(args), returned=returned)
        calls.setdefault(unit.name if unit else "", []).append(call)
    return {name: Trace(tuple(made)) for name, made in calls.items()}


def _calls(
    root: Node, known: Mapping[str, int], variables: frozenset[str], module: str
) -> Iterator[tuple[Node, str, int]]:
    """Those of the project whose results are used, what they are called, and how many results there are."""
    foreign = set()
    for spec in (node for node in walk(root) if node.type == "import_spec"):
        path, named = text(spec.child_by_field_name("path")).strip('"`'), spec.child_by_field_name("name")
        if path != module and not path.startswith(f"{module}/"):
            foreign.add(text(named) or posixpath.basename(path))
    for node in walk(root):
        function, parent = node.child_by_field_name("function"), node.parent
        if node.type != "call_expression" or function is None or parent is None:
            continue
        owner, name = text(function.child_by_field_name("operand")), grammar.called(node)
        number = known.get(f".{name}" if owner and (owner in variables or "." in owner or "(" in owner) else name, 0)
        if not 0 < number <= MOST_RESULTS or parent.type in ("expression_statement", "go_statement", "defer_statement"):
            continue
        if function.type not in ("identifier", "selector_expression") or node.child_by_field_name("type_arguments"):
            continue
        if owner not in foreign:
            yield node, " ".join(text(function).split()), number


def _variables(root: Node) -> frozenset[str]:
    """Of functions: what may be the receiver of a call."""
    return frozenset(
        text(name)
        for node in walk(root)
        if node.type in grammar.DECLARED
        for field in node.children_by_field_name(grammar.DECLARED[node.type])
        for name in walk(field)
        if name.type == "identifier"
    )


def _root(node: Node) -> str:
    while node.type in grammar.MEMBERS:
        node = node.named_children[0]
    return text(node)


def _function(number: int, count: int) -> str:
    names = [f"r{place}" for place in range(count)]
    types = [f"T{place}" for place in range(count)]
    declared = ", ".join(f"{name} {kind}" for name, kind in zip(names, types, strict=True))
    listed = ", ".join(names)
    return (
        f"\nfunc crrlR{number}[{', '.join(types)} any]({declared}) ({', '.join(types)}) {{\n"
        f"\tcrrlNote({number}, {listed})\n\treturn {listed}\n}}\n"
    )


def _with(data: bytes, edits: list[tuple[int, int, str]]) -> bytes:
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: edit[0]):
        parts += [data[at:start], new.encode()]
        at = end
    return b"".join([*parts, data[at:]])


def _plain(value: str) -> str:
    """With pointers as objects of which nothing is known."""
    return POINTER.sub("<pointer>", NIL.sub("nil", value))


def _literal(node: Node) -> bool:
    return node.type in grammar.LITERALS or (
        node.type in ("unary_expression", "binary_expression") and all(map(_literal, node.named_children))
    )
