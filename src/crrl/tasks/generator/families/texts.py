"""Families over words and lists of words."""

from __future__ import annotations

import random

from crrl.tasks.generator.families.program import Program, family
from crrl.tasks.generator.families.vocabulary import Names, text_mapping, text_predicate


@family
def filter_texts(n: Names, rng: random.Random) -> Program:
    a, b = text_predicate(rng, n.text)
    body = [f"return [{n.text} for {n.text} in {n.texts} if {b}]"]
    return Program(f"the list of {n.texts} {a}", n.texts, body, "S")


@family
def count_texts(n: Names, rng: random.Random) -> Program:
    a, b = text_predicate(rng, n.text)
    body = [
        f"{n.result} = 0",
        f"for {n.text} in {n.texts}:",
        f"    if {b}:",
        f"        {n.result} += 1",
        f"return {n.result}",
    ]
    return Program(f"the number of {n.texts} {a}", n.texts, body, "S")


@family
def map_texts(n: Names, rng: random.Random) -> Program:
    a, b = text_mapping(rng, n.text)
    body = [
        f"{n.result} = []",
        f"for {n.text} in {n.texts}:",
        f"    {n.result}.append({b})",
        f"return {n.result}",
    ]
    return Program(f"the list of each of {n.texts} {a}", n.texts, body, "S")


@family
def join_texts(n: Names, rng: random.Random) -> Program:
    a, b = text_mapping(rng, n.text)
    sign = rng.choice(["-", ",", "+", "/"])
    body = [f"{n.result} = [{b} for {n.text} in {n.texts}]", f"return '{sign}'.join({n.result})"]
    return Program(f"each of {n.texts} {a}, joined with {sign}", n.texts, body, "S")


@family
def count_letters(n: Names, rng: random.Random) -> Program:
    letter = rng.choice("aeiou")
    body = [
        f"{n.result} = 0",
        f"for {n.x} in {n.text}:",
        f"    if {n.x} != '{letter}':",
        f"        {n.result} += 1",
        f"return {n.result}",
    ]
    return Program(f"how many characters of {n.text} are not {letter}", n.text, body, "s")


@family
def branch_text(n: Names, rng: random.Random) -> Program:
    (a, b), (c, d) = text_predicate(rng, n.text), text_mapping(rng, n.text)
    body = [f"if {b}:", f"    return {d}", f"return {n.text}"]
    return Program(f"{n.text} {c} if it is {a}, else {n.text}", n.text, body, "s")


@family
def dict_lengths(n: Names, rng: random.Random) -> Program:
    a, b = text_predicate(rng, n.text)
    body = [f"return {{{n.text}: len({n.text}) for {n.text} in {n.texts} if {b}}}"]
    return Program(f"a dict from each of {n.texts} {a} to its length", n.texts, body, "S")
