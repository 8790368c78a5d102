"""Families over numbers: conditions, arithmetic, loops, ranges."""

from __future__ import annotations

import random

from crrl.tasks.generator.families.program import Program, family
from crrl.tasks.generator.families.vocabulary import Names, mapping, predicate


@family
def both(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d), join = predicate(rng, n.x), predicate(rng, n.x), rng.choice(["and", "or"])
    return Program(f"True if {n.x} is {a} {join} {c}, else False", n.x, [f"return {b} {join} {d}"], "i")


@family
def both_nested(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = predicate(rng, n.x), predicate(rng, n.y)
    said = f"True if {n.x} is {a} and {n.y} is {c}, else False"
    return Program(said, f"{n.x}, {n.y}", [f"if {b}:", f"    return {d}", "return False"], "ii")


@family
def while_sum(n: Names, rng: random.Random) -> Program:
    body = [
        f"{n.result} = 0",
        f"{n.x} = {n.k}",
        f"while {n.x} <= {n.y}:",
        f"    {n.result} += {n.x}",
        f"    {n.x} += 1",
        f"return {n.result}",
    ]
    return Program(f"the sum of the numbers from {n.k} to {n.y}", n.y, body, "i")


@family
def while_sum_if(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [
        f"{n.result} = 0",
        f"{n.x} = 1",
        f"while {n.x} <= {n.y}:",
        f"    if {b}:",
        f"        {n.result} += {n.x}",
        f"    {n.x} += 1",
        f"return {n.result}",
    ]
    return Program(f"the sum of the numbers from 1 to {n.y} that are {a}", n.y, body, "i")


@family
def while_divide(n: Names, rng: random.Random) -> Program:
    body = [
        f"{n.result} = 0",
        f"while {n.x} >= {n.k}:",
        f"    {n.x} = {n.x} // {n.k}",
        f"    {n.result} += 1",
        f"return {n.result}",
    ]
    said = f"how many times {n.x} can be floor divided by {n.k} while it is at least {n.k}"
    return Program(said, n.x, body, "p")


@family
def range_sum(n: Names, rng: random.Random) -> Program:
    a, b = mapping(rng, n.x)
    body = [
        f"{n.result} = 0",
        f"for {n.x} in range({n.k}, {n.y} + 1):",
        f"    {n.result} += {b}",
        f"return {n.result}",
    ]
    return Program(f"the sum of each number from {n.k} to {n.y} {a}", n.y, body, "i")


@family
def range_list(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    body = [
        f"{n.result} = []",
        f"for {n.x} in range({n.y}):",
        f"    if {b}:",
        f"        {n.result}.append({n.x})",
        f"return {n.result}",
    ]
    return Program(f"the list of numbers below {n.y} that are {a}", n.y, body, "i")


@family
def larger(n: Names, rng: random.Random) -> Program:
    said, name = rng.choice([("larger", "max"), ("smaller", "min")])
    a, b = mapping(rng, n.y)
    return Program(f"the {said} of {n.x} and {n.y} {a}", f"{n.x}, {n.y}", [f"return {name}({n.x}, {b})"], "ii")


@family
def two_steps(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = mapping(rng, n.x), mapping(rng, n.result)
    return Program(f"{n.x} {a}, then that {c}", n.x, [f"{n.result} = {b}", f"return {d}"], "i")


@family
def combine_step(n: Names, rng: random.Random) -> Program:
    said, sign = rng.choice([("plus", "+"), ("minus", "-"), ("times", "*")])
    c, d = mapping(rng, n.result)
    body = [f"{n.result} = {n.x} {sign} {n.y}", f"return {d}"]
    return Program(f"{n.x} {said} {n.y}, then that {c}", f"{n.x}, {n.y}", body, "ii")


@family
def step_combine(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = mapping(rng, n.x), mapping(rng, n.y)
    said, sign = rng.choice([("plus", "+"), ("minus", "-")])
    return Program(f"{n.x} {a}, {said} {n.y} {c}", f"{n.x}, {n.y}", [f"return {b} {sign} {d}"], "ii")


@family
def grade(n: Names, rng: random.Random) -> Program:
    a, b = predicate(rng, n.x)
    yes, no = rng.sample(["low", "high", "yes", "no", "big", "small", "good", "bad"], 2)
    body = [f"if {b}:", f"    return '{yes}'", f"return '{no}'"]
    return Program(f"'{yes}' if {n.x} is {a}, else '{no}'", n.x, body, "i")


@family
def branch(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d), (e, f) = predicate(rng, n.x), mapping(rng, n.x), mapping(rng, n.x)
    body = [f"if {b}:", f"    return {d}", f"return {f}"]
    return Program(f"{n.x} {c} if {n.x} is {a}, else {n.x} {e}", n.x, body, "i")


@family
def clamp(n: Names, rng: random.Random) -> Program:
    high = n.k + rng.randint(2, 9)
    body = [
        f"if {n.x} < {n.k}:",
        f"    return {n.k}",
        f"if {n.x} > {high}:",
        f"    return {high}",
        f"return {n.x}",
    ]
    return Program(f"{n.x}, but at least {n.k} and at most {high}", n.x, body, "i")


@family
def branch_assign(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = predicate(rng, n.x), mapping(rng, n.x)
    body = [
        f"if {b}:",
        f"    {n.result} = {d}",
        "else:",
        f"    {n.result} = {n.k}",
        f"return {n.result}",
    ]
    return Program(f"{n.x} {c} if {n.x} is {a}, else {n.k}", n.x, body, "i")
