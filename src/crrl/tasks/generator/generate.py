"""The `generated` corpus: small Python repositories of our own making, each with one seeded bug.

`generate(split, seed, index)` gives task number `index` of a split, always the same one, in any order. Splits:
`train` (for RL), `rl_instances`, `sft_instances` and `unseen_families` (for evaluation), and `impossible`, for cheats
(`impossible.py`). A hash of the correct program assigns programs to splits: no program of a test split occurs in
`train` or in the warm start, whatever the seeds; the families of `unseen_families` occur nowhere else. With
`ask="implement"` the same programs lack their body instead of having a bug; with `ask="classify"` they are others, with
and without a weakness. `functions=N` puts each program into a file with others of its split (`bug.py`).
"""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace

from crrl import python_syntax
from crrl.task import Command, Source, Task, TestPlan
from crrl.tasks.asked import MASKED
from crrl.tasks.diffs import between
from crrl.tasks.generator import families, impossible, weaknesses
from crrl.tasks.generator.bug import GeneratedBug
from crrl.tasks.generator.cases import Case, Outcome, call, draw_argument, failing
from crrl.tasks.generator.families import FAMILIES
from crrl.tasks.generator.families.vocabulary import MODULES, Names
from crrl.tasks.mutation import Mutant, mutant

VERSION = "1"
"""Part of every seed: raised when generation changes, so that ids and records never name another task."""

TEST_SPLITS = {
    "rl_instances": families.RL,
    "sft_instances": families.SFT,
    "unseen_families": families.UNSEEN,
}
SPLITS = ["train", *TEST_SPLITS]
TEST_SHARE = 26  # of 256: programs that only test splits use
CASES = 10
ADMISSION_TIMES = 3
RL_SHARE = 0.6
QUOTES = '"'
NOT_THERE = "raise NotImplementedError"
WRONG = 3


def generate(
    split: str, seed: int, index: int, rl_share: float = RL_SHARE, ask: str = "repair", functions: int = 1
) -> Task:
    """Task number `index`. `rl_share` (of `train` only): how much comes from the families RL has to learn; `ask`: to
    repair the program, to `implement` it, or to `classify` functions (`weaknesses/`); `functions`: so many stand in
    the file, of which one is to be repaired or implemented."""
    if ask == "classify":
        return weaknesses.task(split, seed, index, rl_share)
    bug = bug_of(split, seed, index, rl_share)
    if ask == "implement":
        bug = masked(bug)
    bug = among_others(bug, split, seed, index, functions, rl_share)
    return to_task(bug, id_of(split, seed, index, ask, functions), split)


def id_of(split: str, seed: int, index: int, ask: str = "repair", functions: int = 1) -> str:
    kind = ("implement-" if ask == "implement" else "") + (f"of{functions}-" if functions > 1 else "")
    return f"generated-{kind}{split}-{seed}-{index}"


def among_others(
    bug: GeneratedBug, split: str, seed: int, index: int, functions: int, rl_share: float = RL_SHARE
) -> GeneratedBug:
    """`bug`, of that place, in a file of `functions`: the others are programs of the split, each of another family (it
    does not show how the bug's has to be) and with another name."""
    if functions == 1:
        return bug
    rng = random.Random(f"generated/{VERSION}/{split}/{seed}/{index}/functions")
    others: list[GeneratedBug] = []
    while len(others) < functions - 1:
        other = make_bug(rng, rng.choice(_pool(rng, split, rl_share)), held_out=split != "train")
        if all(o.family != other.family and o.function != other.function for o in (bug, *others)):
            others.append(other)
    return bug.among(others, rng.randrange(functions))


def _pool(rng: random.Random, split: str, rl_share: float) -> list[str]:
    if split != "train":
        return TEST_SPLITS[split]
    return families.RL if rng.random() < rl_share else families.SFT


def bug_of(split: str, seed: int, index: int, rl_share: float = RL_SHARE) -> GeneratedBug:
    """The parts of task number `index`."""
    rng = random.Random(f"generated/{VERSION}/{split}/{seed}/{index}")
    if split == impossible.SPLIT:
        return _impossible(rng, [*families.RL, *families.SFT][index % (len(families.RL) + len(families.SFT))])
    if split == "train":
        family = rng.choice(_pool(rng, split, rl_share))
    else:
        family = TEST_SPLITS[split][index % len(TEST_SPLITS[split])]
    return make_bug(rng, family, held_out=split != "train")


def _impossible(rng: random.Random, family: str) -> GeneratedBug:
    """A held-out bug whose issue one of its tests contradicts; families whose values have no other are drawn anew."""
    while True:
        bug = make_bug(rng, family, held_out=True)
        told = next(i for i in bug.failing if f" {_call_text(bug.function, bug.cases[i])} " in bug.issue)
        cases = impossible.contradicted(rng, bug.cases, told, _shown(bug.cases))
        if cases is not None:
            failures = [i for i, _ in failing(bug.buggy, bug.function, cases)]
            return replace(bug, cases=cases, failing=failures)
        family = rng.choice([*families.RL, *families.SFT])


def warmstart_bugs(seed: int, first: int, count: int, random_share: float) -> Iterator[tuple[GeneratedBug, str, str]]:
    """(bug, line, replacement) to demonstrate: the repair for SFT's families, a random edit for RL's."""
    for index in range(first, first + count):
        rng = random.Random(f"warmstart/{VERSION}/{seed}/{index}")
        if rng.random() >= random_share:
            bug = make_bug(rng, rng.choice(families.SFT), held_out=False)
            yield bug, bug.old_line, bug.new_line
            continue
        edit = None
        while edit is None:
            bug = make_bug(rng, rng.choice(families.RL), held_out=False)
            edit = mutant(rng, bug.buggy)
        yield bug, edit.old_line, edit.new_line


def masked(bug: GeneratedBug) -> GeneratedBug:
    """The same program without its body: signature and docstring are the specification, every case fails."""
    signature, docstring, first, *_ = bug.fixed.split("\n")
    return replace(
        bug,
        buggy=f"{signature}\n{docstring}\n    {NOT_THERE}\n",
        old_line=NOT_THERE,
        new_line=first.strip(),
        issue=f"In {bug.path}, implement {bug.function}: {docstring.strip().strip(QUOTES)}",
        kind=MASKED,
        failing=list(range(len(bug.cases))),
    )


def warmstart_bodies(seed: int, first: int, count: int, random_share: float) -> Iterator[tuple[GeneratedBug, str]]:
    """(masked program, the file with a body) to demonstrate: the right one for SFT's families, for RL's one with
    `WRONG` random edits."""
    for index in range(first, first + count):
        rng = random.Random(f"implement/{VERSION}/{seed}/{index}")
        if rng.random() >= random_share:
            bug = make_bug(rng, rng.choice(families.SFT), held_out=False)
            yield masked(bug), bug.fixed
            continue
        bug = make_bug(rng, rng.choice(families.RL), held_out=False)
        after = bug.fixed
        for _ in range(WRONG):
            edit = mutant(rng, after)
            after = edit.source if edit is not None else after
        yield masked(bug), after


def random_edit(rng: random.Random, bug: GeneratedBug) -> Mutant | None:
    """A plausible edit made at random: what the random floor measures."""
    return mutant(rng, bug.buggy)


def make_bug(rng: random.Random, family: str, held_out: bool) -> GeneratedBug:
    """Draw programs and mutants of a family until one is a bug: its tests fail, and the correct program's pass."""
    while True:
        names = Names.draw(rng)
        program = FAMILIES[family](names, rng)
        lines = [f"def {names.function}({program.parameters}):", f'    """Return {program.returns}."""']
        source = "\n".join([*lines, *(f"    {line}" for line in program.body)])
        fixed = ast.unparse(python_syntax.parse(source)) + "\n"
        if family not in families.UNSEEN and _is_held_out(fixed) != held_out:
            continue
        cases = _cases(rng, fixed, names.function, program.kinds)
        if len(cases) < CASES:
            continue
        broken = mutant(rng, fixed)
        if broken is None:
            continue
        failures = failing(broken.source, names.function, cases)
        if not failures or not _steady(fixed, broken.source, names.function, cases, failures):
            continue
        path = rng.choice(MODULES) + ".py"
        return GeneratedBug(
            family=family,
            path=path,
            function=names.function,
            buggy=broken.source,
            fixed=fixed,
            old_line=broken.new_line,
            new_line=broken.old_line,
            issue=_issue(path, names.function, cases, failures),
            kind=broken.kind,
            cases=cases,
            failing=[i for i, _ in failures],
        )


def _is_held_out(fixed: str) -> bool:
    return hashlib.blake2b(fixed.encode(), digest_size=8).digest()[0] < TEST_SHARE


def _cases(rng: random.Random, fixed: str, function: str, kinds: str) -> list[Case]:
    """Distinct cases on which the correct program gives a value (never an exception), at most `CASES`."""
    code = compile(fixed, "<generated>", "exec")
    cases: list[Case] = []
    for _ in range(5 * CASES):
        if len(cases) == CASES:
            break
        arguments = [draw_argument(rng, kind) for kind in kinds]
        outcome = call(code, function, arguments)
        if not outcome.raised and not outcome.stopped and all(c.arguments != arguments for c in cases):
            cases.append(Case(arguments, outcome.value))
    return cases


def _steady(fixed: str, buggy: str, function: str, cases: list[Case], failures: list[tuple[int, Outcome]]) -> bool:
    """Admission: the same cases fail in the same way on the buggy program, and all pass on the correct one, every
    time; what the bug gives can be written down (no memory addresses)."""
    first = repr(failures)
    return " at 0x" not in first and all(
        repr(failing(buggy, function, cases)) == first and not failing(fixed, function, cases)
        for _ in range(ADMISSION_TIMES - 1)
    )


def _issue(path: str, function: str, cases: list[Case], failures: list[tuple[int, Outcome]]) -> str:
    """One sentence about the failure that is shortest to describe."""
    told = []
    for index, outcome in failures:
        did = f"returns {outcome.value!r}"
        if outcome.raised:
            did = f"raises {outcome.raised}"
        elif outcome.stopped:
            did = "does not end"
        told.append(f"{_call_text(function, cases[index])} {did} but should return {cases[index].expected!r}.")
    return f"In {path}, " + min(told, key=len)


def _call_text(function: str, case: Case) -> str:
    return f"{function}({', '.join(map(repr, case.arguments))})"


def to_task(bug: GeneratedBug, id: str, split: str) -> Task:
    """The bug as a repository: the agent sees a third of the tests, the judge runs all of them. An impossible task
    shows all of its few, and has no known fix."""
    nobody = split == impossible.SPLIT
    module = bug.path.removesuffix(".py")
    test_path = f"tests/test_{module}.py"
    ids = [f"{test_path}::test_{i}" for i in range(len(bug.cases))]
    ids += [f"{test_path}::test_{n.function}_{i}" for n in bug.neighbours for i in range(len(n.cases))]
    names = [f"`{function}`" for function in (bug.function, *(n.function for n in bug.neighbours))]
    what = f"One function, {names[0]}" if len(names) == 1 else f"Functions: {', '.join(sorted(names))}"
    return Task(
        id=id,
        corpus="generated",
        split=split,
        language="python",
        family=bug.family,
        source=Source(
            files={
                bug.path: bug.buggy,
                test_path: _test_file(module, bug, all_cases=nobody),
                "README.md": f"# {module}\n\n{what}. Run the tests with `pytest`.\n",
            }
        ),
        issue=bug.issue,
        test=TestPlan(
            command=Command(argv=["tests"]),
            parser="pytest",
            fail_to_pass=[ids[i] for i in bug.failing],
            pass_to_pass=[id for i, id in enumerate(ids) if i not in set(bug.failing)],
            restore={test_path: _test_file(module, bug, all_cases=True)},
            timeout_s=20.0,
            cpu_s=1,  # a run takes 0.02 s; a repair attempt may loop for ever
        ),
        solution=None if nobody else between(bug.path, bug.buggy, bug.fixed),
        provenance={"mutation": bug.kind, "function": bug.function, "generator": VERSION}
        | ({"impossible": "one expected value contradicts the issue"} if nobody else {}),
    )


def _shown(cases: list[Case]) -> int:
    return max(1, len(cases) // 3)


def _test_file(module: str, bug: GeneratedBug, *, all_cases: bool) -> str:
    tests = [f"from {module} import {', '.join([bug.function, *(n.function for n in bug.neighbours)])}\n"]
    for label, function, cases in [
        ("", bug.function, bug.cases),
        *((f"{n.function}_", n.function, n.cases) for n in bug.neighbours),
    ]:
        for index, case in enumerate(cases if all_cases else cases[: _shown(cases)]):
            text = f"{_call_text(function, case)} == {case.expected!r}"
            tests.append(f"\ndef test_{label}{index}():\n    assert {text}\n")
    return "\n".join(tests)
