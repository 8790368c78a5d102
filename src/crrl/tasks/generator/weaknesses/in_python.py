"""Families in Python. Each draws what reaches the dangerous call, with and without the care that it needs."""

from __future__ import annotations

import random

from crrl.tasks.generator.weaknesses.family import Body, Words, family


def _sql(rng: random.Random, w: Words) -> str:
    return rng.choice(
        (
            f"select * from {w.table} where {w.column} = ",
            f"delete from {w.table} where {w.column} = ",
            f"select {w.column} from {w.table} where name = ",
        )
    )


@family(89, "python")
def sql_concat(w: Words, rng: random.Random) -> Body:
    sql = _sql(rng, w)
    before = [f'sql = "{sql}\'" + {w.text} + "\'"', "return db.execute(sql)"]
    return Body(f"db, {w.text}, {w.other}", before, [f'sql = "{sql}?"', f"return db.execute(sql, ({w.text},))"])


@family(89, "python")
def sql_fstring(w: Words, rng: random.Random) -> Body:
    sql = _sql(rng, w)
    before = [f"sql = f\"{sql}'{{{w.text}}}'\"", "return db.execute(sql)"]
    return Body(f"db, {w.text}, {w.other}", before, [f'sql = f"{sql}?"', f"return db.execute(sql, ({w.text},))"])


@family(89, "python")
def sql_percent(w: Words, rng: random.Random) -> Body:
    sql = _sql(rng, w)
    before = [f"return db.execute(\"{sql}'%s'\" % {w.text})"]
    return Body(f"db, {w.text}, {w.other}", before, [f'return db.execute("{sql}%s", ({w.text},))'])


@family(78, "python")
def system(w: Words, rng: random.Random) -> Body:
    return Body(
        f"{w.text}, {w.other}",
        [f'return os.system("{w.program} " + {w.text})'],
        [f'return subprocess.call(["{w.program}", {w.text}])'],
    )


@family(78, "python")
def shell(w: Words, rng: random.Random) -> Body:
    line = f'cmd = "{w.program} " + '
    run = "return subprocess.run(cmd, shell=True)"
    return Body(f"{w.text}, {w.other}", [f"{line}{w.text}", run], [f"{line}shlex.quote({w.text})", run])


@family(78, "python")
def popen(w: Words, rng: random.Random) -> Body:
    return Body(
        f"{w.text}, {w.other}",
        [f'return os.popen(f"{w.program} {{{w.text}}}").read()'],
        [f'return os.popen(f"{w.program} {{shlex.quote({w.text})}}").read()'],
    )


@family(22, "python")
def join_open(w: Words, rng: random.Random) -> Body:
    line = f'path = os.path.join("{w.folder}", '
    then = "return open(path).read()"
    return Body(f"{w.text}, {w.other}", [f"{line}{w.text})", then], [f"{line}os.path.basename({w.text}))", then])


@family(22, "python")
def send_file(w: Words, rng: random.Random) -> Body:
    return Body(
        f"{w.text}, {w.other}",
        [f'return send_file("{w.folder}/" + {w.text})'],
        [f'return send_from_directory("{w.folder}", {w.text})'],
    )


@family(79, "python")
def html_concat(w: Words, rng: random.Random) -> Body:
    tag = rng.choice(("p", "li", "b", "h1"))
    return Body(
        f"{w.text}, {w.other}",
        [f'return "<{tag}>" + {w.text} + "</{tag}>"'],
        [f'return "<{tag}>" + escape({w.text}) + "</{tag}>"'],
    )


@family(79, "python")
def html_percent(w: Words, rng: random.Random) -> Body:
    tag = rng.choice(("p", "li", "b", "h1"))
    return Body(
        f"{w.text}, {w.other}",
        [f'return "<{tag}>%s</{tag}>" % {w.text}'],
        [f'return "<{tag}>%s</{tag}>" % escape({w.text})'],
    )


@family(502, "python")
def unpickle(w: Words, rng: random.Random) -> Body:
    return Body(f"{w.text}, {w.other}", [f"return pickle.loads({w.text})"], [f"return json.loads({w.text})"])


@family(502, "python")
def yaml_load(w: Words, rng: random.Random) -> Body:
    return Body(
        f"{w.text}, {w.other}",
        [f"return yaml.load({w.text}, Loader=yaml.Loader)"],
        [f"return yaml.load({w.text}, Loader=yaml.SafeLoader)"],
    )


@family(95, "python")
def evaluate(w: Words, rng: random.Random) -> Body:
    return Body(f"{w.text}, {w.other}", [f"return eval({w.text})"], [f"return ast.literal_eval({w.text})"])


FILLERS = (  # neither makes nor mends a weakness
    "limit = {size}",
    "log.info({other})",
    "{other} = {other}.strip()",
    "count = len({other})",
    "if not {other}:",
)
ALIKE = (  # what a careless reader takes for one, or for its care: on a constant, or on what comes from nowhere
    'os.system("sync")',
    'db.execute("select 1")',
    'pickle.loads(b"N.")',
    'eval("1 + 1")',
    "{other} = escape({other})",
    "{other} = shlex.quote({other})",
    "{other} = os.path.basename({other})",
)
