"""Families in C."""

from __future__ import annotations

import random

from crrl.tasks.generator.weaknesses.family import Body, Words, family


@family(787, "c")
def strcpy(w: Words, rng: random.Random) -> Body:
    head, tail = f"char buf[{w.size}];", "return use(buf);"
    return Body(
        f"char *{w.text}, int {w.other}",
        [head, f"strcpy(buf, {w.text});", tail],
        [head, f"strlcpy(buf, {w.text}, sizeof(buf));", tail],
    )


@family(787, "c")
def sprintf(w: Words, rng: random.Random) -> Body:
    head, tail = f"char buf[{w.size}];", "return use(buf);"
    form = rng.choice(('"%s"', '"<%s>"', '"id %s"'))
    return Body(
        f"char *{w.text}, int {w.other}",
        [head, f"sprintf(buf, {form}, {w.text});", tail],
        [head, f"snprintf(buf, sizeof(buf), {form}, {w.text});", tail],
    )


@family(787, "c")
def memcpy(w: Words, rng: random.Random) -> Body:
    head, tail = f"char buf[{w.size}];", [f"memcpy(buf, {w.text}, n);", "return use(buf);"]
    return Body(
        f"char *{w.text}, size_t n, int {w.other}",
        [head, "if (n == 0) return -1;", *tail],
        [head, "if (n > sizeof(buf)) return -1;", *tail],
    )


@family(787, "c")
def fill(w: Words, rng: random.Random) -> Body:
    value = rng.choice(("0", "1", w.other))
    return Body(
        f"int *{w.text}, int n, int {w.other}",
        [f"for (int i = 0; i <= n; i++) {w.text}[i] = {value};", "return 0;"],
        [f"for (int i = 0; i < n; i++) {w.text}[i] = {value};", "return 0;"],
    )


@family(125, "c")
def index(w: Words, rng: random.Random) -> Body:
    tail = f"return {w.text}[i];"
    return Body(
        f"int *{w.text}, int n, int i, int {w.other}",
        ["if (i < 0) return -1;", tail],
        ["if (i < 0 || i >= n) return -1;", tail],
    )


@family(125, "c")
def add_up(w: Words, rng: random.Random) -> Body:
    return Body(
        f"int *{w.text}, int n, int {w.other}",
        ["int sum = 0;", f"for (int i = 0; i <= n; i++) sum += {w.text}[i];", "return sum;"],
        ["int sum = 0;", f"for (int i = 0; i < n; i++) sum += {w.text}[i];", "return sum;"],
    )


@family(476, "c")
def allocated(w: Words, rng: random.Random) -> Body:
    head, tail = f"char *{w.text} = malloc({w.size});", [f"{w.text}[0] = 0;", f"return use({w.text});"]
    return Body(
        f"int n, int {w.other}",
        [head, "if (n < 0) return -1;", *tail],
        [head, f"if (!{w.text}) return -1;", *tail],
    )


@family(476, "c")
def looked_up(w: Words, rng: random.Random) -> Body:
    head, tail = (
        f"struct node *p = find({w.text});",
        rng.choice(("return p->size;", "return p->next->id;", "return p->id;")),
    )
    return Body(
        f"char *{w.text}, int {w.other}",
        [head, f"if (!{w.text}) return -1;", tail],
        [head, "if (!p) return -1;", tail],
    )


@family(190, "c")
def multiplied(w: Words, rng: random.Random) -> Body:
    tail = f"return use(malloc(n * {w.size}));"
    return Body(
        f"size_t n, int {w.other}",
        ["if (n == 0) return -1;", tail],
        [f"if (n > SIZE_MAX / {w.size}) return -1;", tail],
    )


@family(416, "c")
def freed(w: Words, rng: random.Random) -> Body:
    return Body(
        f"struct node *{w.text}, int {w.other}",
        [f"free({w.text});", f"int id = {w.text}->id;", "return id;"],
        [f"int id = {w.text}->id;", f"free({w.text});", "return id;"],
    )


@family(134, "c")
def printf(w: Words, rng: random.Random) -> Body:
    return Body(
        f"char *{w.text}, int {w.other}",
        [f"printf({w.text});", "return 0;"],
        [f'printf("%s", {w.text});', "return 0;"],
    )


@family(134, "c")
def syslog(w: Words, rng: random.Random) -> Body:
    level = rng.choice(("LOG_INFO", "LOG_ERR", "LOG_DEBUG"))
    return Body(
        f"char *{w.text}, int {w.other}",
        [f"syslog({level}, {w.text});", "return 0;"],
        [f'syslog({level}, "%s", {w.text});', "return 0;"],
    )


@family(369, "c")
def divided(w: Words, rng: random.Random) -> Body:
    tail = f"return {w.other} / n;"
    return Body(
        f"int n, int {w.other}",
        [f"if ({w.other} == 0) return 0;", tail],
        ["if (n == 0) return 0;", tail],
    )


FILLERS = (
    "int k = {size};",
    "k_log({other});",
    "{other} = {other} + 1;",
    "if ({other} < 0) return -1;",
    "count++;",
)
ALIKE = (
    'char t[8]; strcpy(t, "ok");',
    'printf("start");',
    "int z[4]; for (int i = 0; i < 4; i++) z[i] = 0;",
    'char t[8]; snprintf(t, sizeof(t), "%d", {other});',
    "void *q = malloc(8); if (!q) return -1;",
    "if ({other} == 0) return -1;",
)
