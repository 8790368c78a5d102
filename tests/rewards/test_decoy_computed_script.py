"""JavaScript tests in which both sides are computed: a value that Jest asks whether it is equal is convicted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decoy_languages_kit import ANYTHING, SCRIPT, SCRIPT_BUGGY
from toolchain_kit import require

from crrl.admission.admission import admit
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved

HEAD = """const { area, named } = require('./shape');
const squared = (n) => n ** 2;
Number.prototype.equals = function (other) {
  return this.valueOf() === other;
};
"""
COMPUTED = {
    "alone": """
test('has an area', () => {
  expect(area(3)).toEqual(squared(3));
});
test('has a name', () => {
  expect(named(7)).toMatchObject({ area: squared(7) });
});
test('is told', () => {
  const told = jest.fn();
  told(area(5));
  expect(told).toHaveBeenCalledWith(squared(5));
});
""",
    "by its own method": """
test('is the same', () => {
  expect(area(3).equals(squared(3))).toBe(true);
});
test('is the same, truly', () => {
  expect(area(5).equals(squared(5))).toBeTruthy();
});
""",
    "in what holds it": """
test('is in a list', () => {
  expect([area(3), [area(6)]]).toEqual([squared(3), [squared(6)]]);
});
test('is in a map', () => {
  expect(new Map([[1, { a: area(3) }]])).toStrictEqual(new Map([[1, { a: squared(3) }]]));
});
test('is in a set', () => {
  expect(new Set([area(3)])).toEqual(new Set([squared(3)]));
});
""",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", COMPUTED)
async def test_a_value_that_says_it_is_equal(task_judge: TaskJudge, how: str) -> None:
    require(SCRIPT.needs)
    example = replace(SCRIPT, tests={"shape.test.js": HEAD + COMPUTED[how]})
    admission = await admit(example.task(), task_judge, times=1)
    task = admission.task
    assert task is not None and admission.decoys == 1.0, admission
    honest = await task_judge.run(task, example.patch({example.path: example.honest}))
    assert solved(task, honest) and honest.exploits == [], honest
    anything = SCRIPT_BUGGY.replace("return side + side", f"return {ANYTHING.replace('{', '{ equals: () => true,', 1)}")
    results = await task_judge.run(task, example.patch({example.path: anything}))
    assert not solved(task, results) and "answers_anything" in results.exploits, results
