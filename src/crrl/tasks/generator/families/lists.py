"""Families over lists of numbers."""

from __future__ import annotations

import random

from crrl.tasks.generator.families.program import Program, family
from crrl.tasks.generator.families.vocabulary import Names, mapping, predicate


def _loop(n: Names, start: str, *inside: str) -> list[str]:
    """`result = start; for x in numbers: ...; return result`."""
    lines = [f"{n.result} = {start}", f"for {n.x} in {n.numbers}:"]
    return [*lines, *(f"    {line}" for line in inside), f"return {n.result}"]


@family
def sum_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, "0", f"if {b}:", f"    {n.result} += {n.x}")
    return Program(f"the sum of the {n.numbers} {a}", n.numbers, body, "L")


@family
def count_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, "0", f"if {b}:", f"    {n.result} += 1")
    return Program(f"the number of {n.numbers} {a}", n.numbers, body, "L")


@family
def product_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, "1", f"if {b}:", f"    {n.result} *= {n.x}")
    return Program(f"the product of the {n.numbers} {a}", n.numbers, body, "L")


@family
def sum_map(n: Names, rng: random.Random) -> Program:
    a, b = mapping(rng, n.x)
    return Program(f"the sum of each of {n.numbers} {a}", n.numbers, _loop(n, "0", f"{n.result} += {b}"), "L")


@family
def sum_from(n: Names, rng: random.Random) -> Program:
    body = _loop(n, str(n.k), f"{n.result} += {n.x}")
    return Program(f"{n.k} plus the sum of {n.numbers}", n.numbers, body, "L")


@family
def subtract_from(n: Names, rng: random.Random) -> Program:
    body = _loop(n, str(n.k), f"{n.result} -= {n.x}")
    return Program(f"{n.k} minus the sum of {n.numbers}", n.numbers, body, "L")


@family
def filter_loop(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, "[]", f"if {b}:", f"    {n.result}.append({n.x})")
    return Program(f"the list of {n.numbers} {a}", n.numbers, body, "L")


@family
def map_loop(n: Names, rng: random.Random) -> Program:
    a, b = mapping(rng, n.x)
    return Program(f"the list of each of {n.numbers} {a}", n.numbers, _loop(n, "[]", f"{n.result}.append({b})"), "L")


@family
def filter_map(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = predicate(rng, n.x), mapping(rng, n.x)
    body = _loop(n, "[]", f"if {b}:", f"    {n.result}.append({d})")
    return Program(f"the list of each of {n.numbers} {c}, only for those {a}", n.numbers, body, "L")


@family
def comp_filter(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [f"return [{n.x} for {n.x} in {n.numbers} if {b}]"]
    return Program(f"the list of {n.numbers} {a}", n.numbers, body, "L")


@family
def comp_map(n: Names, rng: random.Random) -> Program:
    a, b = mapping(rng, n.x)
    return Program(f"the list of each of {n.numbers} {a}", n.numbers, [f"return [{b} for {n.x} in {n.numbers}]"], "L")


@family
def comp_filter_map(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = predicate(rng, n.x), mapping(rng, n.x)
    body = [f"return [{d} for {n.x} in {n.numbers} if {b}]"]
    return Program(f"the list of each of {n.numbers} {c}, only for those {a}", n.numbers, body, "L")


@family
def comp_reduce(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    said, call = rng.choice([("sum", "sum({})"), ("largest", "max({}, default=0)"), ("smallest", "min({}, default=0)")])
    body = [f"{n.result} = [{n.x} for {n.x} in {n.numbers} if {b}]", "return " + call.format(n.result)]
    none = "" if said == "sum" else ", or 0 if none"
    return Program(f"the {said} of the {n.numbers} {a}{none}", n.numbers, body, "L")


@family
def first_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [f"for {n.x} in {n.numbers}:", f"    if {b}:", f"        return {n.x}", f"return {n.k}"]
    return Program(f"the first of {n.numbers} {a}, or {n.k} if none", n.numbers, body, "L")


@family
def last_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, str(n.k), f"if {b}:", f"    {n.result} = {n.x}")
    return Program(f"the last of {n.numbers} {a}, or {n.k} if none", n.numbers, body, "L")


@family
def index_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [f"for i, {n.x} in enumerate({n.numbers}):", f"    if {b}:", "        return i", "return -1"]
    return Program(f"the index of the first of {n.numbers} {a}, or -1 if none", n.numbers, body, "L")


@family
def any_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [f"for {n.x} in {n.numbers}:", f"    if {b}:", "        return True", "return False"]
    return Program(f"True if any of {n.numbers} is {a}, else False", n.numbers, body, "L")


@family
def none_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [f"for {n.x} in {n.numbers}:", f"    if {b}:", "        return False", "return True"]
    return Program(f"False if any of {n.numbers} is {a}, else True", n.numbers, body, "L")


@family
def any_comp(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    name = rng.choice(["any", "all"])
    body = [f"return {name}(({b} for {n.x} in {n.numbers}))"]
    return Program(f"True if {name} of {n.numbers} is {a}, else False", n.numbers, body, "L")


@family
def largest(n: Names, rng: random.Random) -> Program:
    said, sign = rng.choice([("largest", ">"), ("smallest", "<")])
    body = _loop(n, f"{n.numbers}[0]", f"if {n.x} {sign} {n.result}:", f"    {n.result} = {n.x}")
    return Program(f"the {said} of {n.numbers}", n.numbers, body, "N")


@family
def largest_or(n: Names, rng: random.Random) -> Program:
    said, name = rng.choice([("largest", "max"), ("smallest", "min")])
    body = [f"if not {n.numbers}:", f"    return {n.k}", f"return {name}({n.numbers})"]
    return Program(f"the {said} of {n.numbers}, or {n.k} if it is empty", n.numbers, body, "E")


@family
def dict_count(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    count = f"{n.result}[{n.x}] = {n.result}.get({n.x}, 0) + 1"
    body = _loop(n, "{}", f"if {b}:", f"    {count}")
    return Program(f"a dict that counts each of {n.numbers} {a}", n.numbers, body, "L")


@family
def dict_map(n: Names, rng: random.Random) -> Program:
    a, b = mapping(rng, n.x)
    body = [f"return {{{n.x}: {b} for {n.x} in {n.numbers}}}"]
    return Program(f"a dict from each of {n.numbers} to it {a}", n.numbers, body, "L")


@family
def slice_map(n: Names, rng: random.Random) -> Program:
    k = rng.randint(1, 4)
    a, b = rng.choice(
        [
            (f"the first {k} of {n.numbers}", f"{n.numbers}[:{k}]"),
            (f"{n.numbers} without the first {k}", f"{n.numbers}[{k}:]"),
            (f"the last {k} of {n.numbers}", f"{n.numbers}[-{k}:]"),
            (f"{n.numbers} without the last {k}", f"{n.numbers}[:-{k}]"),
        ]
    )
    c, d = mapping(rng, n.x)
    body = [f"{n.result} = {b}", f"return [{d} for {n.x} in {n.result}]"]
    return Program(f"the list of each of {a}, {c}", n.numbers, body, "N")


@family
def stride_if(n: Names, rng: random.Random) -> Program:
    k = rng.randint(2, 4)
    a, b = predicate(rng, n.x)
    body = [
        f"{n.result} = []",
        f"for {n.x} in {n.numbers}[::{k}]:",
        f"    if {b}:",
        f"        {n.result}.append({n.x})",
        f"return {n.result}",
    ]
    return Program(f"every {k}th of {n.numbers} that is {a}", n.numbers, body, "N")


@family
def neighbours(n: Names, rng: random.Random) -> Program:
    said, sign = rng.choice([("plus", "+"), ("minus", "-"), ("times", "*")])
    body = [
        f"{n.result} = []",
        f"for i in range(len({n.numbers}) - 1):",
        f"    {n.result}.append({n.numbers}[i + 1] {sign} {n.numbers}[i])",
        f"return {n.result}",
    ]
    return Program(f"the list of each next item of {n.numbers} {said} the item", n.numbers, body, "N")


@family
def flatten(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [
        f"{n.result} = []",
        f"for row in {n.numbers}:",
        f"    for {n.x} in row:",
        f"        if {b}:",
        f"            {n.result}.append({n.x})",
        f"return {n.result}",
    ]
    return Program(f"the flat list of items in the rows of {n.numbers} {a}", n.numbers, body, "M")


@family
def row_map(n: Names, rng: random.Random) -> Program:
    name, said = rng.choice([("sum", "sum"), ("max", "largest"), ("min", "smallest")])
    c, d = mapping(rng, f"{name}(row)")
    body = [f"return [{d} for row in {n.numbers}]"]
    return Program(f"the list of the {said} of each row of {n.numbers} {c}", n.numbers, body, "M")


@family
def sort_if(n: Names, rng: random.Random) -> Program:
    said, reverse = rng.choice([("increasing", "False"), ("decreasing", "True")])
    a, b = predicate(rng, n.x)
    body = [
        f"{n.result} = [{n.x} for {n.x} in {n.numbers} if {b}]",
        f"return sorted({n.result}, reverse={reverse})",
    ]
    return Program(f"the {n.numbers} {a} in {said} order", n.numbers, body, "L")


@family
def unique_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = _loop(n, "[]", f"if {b} and {n.x} not in {n.result}:", f"    {n.result}.append({n.x})")
    return Program(f"the list of {n.numbers} {a} without repeats", n.numbers, body, "L")
