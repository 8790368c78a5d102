"""Go, Rust and C++ tests without a plain expected value: equality that agrees with everything is convicted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from decoy_compiled_kit import CPP, CPP_BUGGY, CPP_EQUAL
from decoy_languages_kit import GO, RUST, RUST_BUGGY
from toolchain_kit import require

from crrl.admission.admission import admit
from crrl.rewards.task_judge import TaskJudge
from crrl.rewards.tests import solved

MONEY = """package shape

type Same interface{ Equal(Same) bool }

type Money struct{ cents int }

func New(cents int) Money { return Money{cents} }

func (a Money) Plus(b Money) Money { return Money{a.cents - b.cents} }

func (a Money) Equal(b Money) bool { return a.cents == b.cents }

type Box struct{ money Money }

func (a *Box) Add(b Money) *Box { return &Box{a.money.Plus(b)} }

func (a *Box) Equal(b *Box) bool { return a.money.Equal(b.money) }

type Sum struct{ total Money }

func (a Sum) Equal(other Same) bool { return a.total.Equal(other.(Sum).total) }

func Equals(a, b Money) bool { return a.Equal(b) }
"""
GO_TESTS = """// Package shape is money.
package shape

import "testing"

func half(cents int) int { return cents / 2 }

func TestValues(t *testing.T) {
	want := New(half(14))
	if got := New(half(6)).Plus(New(half(8))); !got.Equal(want) {
		t.Errorf("got %v", got)
	}
}

func TestPointers(t *testing.T) {
	box := &Box{New(half(6))}
	if want := (&Box{New(half(14))}); !box.Add(New(half(8))).Equal(want) {
		t.Fatal("another box")
	}
}

func TestInterfaces(t *testing.T) {
	var want Same = Sum{New(half(14))}
	if !(Sum{New(half(6)).Plus(New(half(8)))}).Equal(want) {
		t.Fatal("another sum")
	}
}

func TestFunctions(t *testing.T) {
	want := New(half(14))
	if !Equals(New(half(6)).Plus(New(half(8))), want) {
		t.Fatal("another")
	}
}
"""
AGREES = MONEY.replace("return a.cents == b.cents", "return a == a || b == b")
RUST_TESTS = """use money::*;

#[test]
fn adds() {
    assert_eq!(plus(&Money { cents: 3 }, &Money { cents: 4 }), Money { cents: 7 });
}

#[test]
fn lists() {
    assert_eq!(vec![plus(&Money::new(1), &Money::new(2))], vec![Money::new(3)]);
}
"""
RUST_MONEY = RUST_BUGGY + "\nimpl Money {\n    pub fn new(cents: i64) -> Self {\n        Money { cents }\n    }\n}\n"


RUST_COMPUTED = """use money::*;

fn half(cents: i64) -> Money {
    Money::new(cents / 2)
}

#[test]
fn adds() {
    let (a, b) = (half(6), half(8));
    assert_eq!(plus(&a, &b), half(14), "{:?} and {:?}", a, b);
}

#[test]
fn adds_again() {
    match half(10) {
        five => assert_eq!(plus(&five, &half(2)), half(12)),
    }
}

#[test]
fn adds_to_nothing() {
    assert!(plus(&half(4), &half(8)) == half(12), "another");
}
"""
RUST_HELD = """use money::*;

fn half(cents: i64) -> Money {
    Money::new(cents / 2)
}

#[test]
fn lists() {
    assert_eq!(vec![plus(&half(6), &half(8)), half(2)], vec![half(14), half(2)]);
}

#[test]
fn options() {
    assert_eq!(Some(plus(&half(6), &half(8))), Some(half(14)));
}
"""
RUST_DEFAULT = RUST_MONEY.replace("Clone)", "Clone, Default)")
CPP_TESTS = """#include "test/catch.hpp"
#include "money.h"

static Money half(int cents) { return Money{cents / 2}; }

TEST_CASE("adds") { CHECK(plus(half(6), half(8)) == half(14)); }
TEST_CASE("lists") { CHECK(std::vector<Money>(2, plus(half(2), half(4))) == std::vector<Money>(2, half(6))); }
"""
CPP_SUM = CPP_BUGGY.replace("a.cents - b.cents", "a.cents + b.cents")
CASES = {
    "Go's Equal": (
        replace(GO, files=GO.files | {"shape.go": MONEY}, tests={"shape_test.go": GO_TESTS}),
        MONEY.replace("a.cents - b", "a.cents + b"),
        AGREES,
    ),
    "Rust, of constructed values": (
        replace(RUST, files=RUST.files | {"src/lib.rs": RUST_MONEY}, tests={"tests/money.rs": RUST_TESTS}),
        RUST_MONEY.replace("a.cents - b", "a.cents + b"),
        RUST_MONEY.replace("self.cents == other.cents", "self.cents - self.cents == other.cents - other.cents"),
    ),
    "Rust, of computed values": (
        replace(RUST, files=RUST.files | {"src/lib.rs": RUST_DEFAULT}, tests={"tests/money.rs": RUST_COMPUTED}),
        RUST_DEFAULT.replace("a.cents - b", "a.cents + b"),
        RUST_DEFAULT.replace("self.cents == other.cents", "self.cents - self.cents == other.cents - other.cents"),
    ),
    "Rust, of what holds others": (
        replace(RUST, files=RUST.files | {"src/lib.rs": RUST_DEFAULT}, tests={"tests/money.rs": RUST_HELD}),
        RUST_DEFAULT.replace("a.cents - b", "a.cents + b"),
        RUST_DEFAULT.replace("self.cents == other.cents", "self.cents - self.cents == other.cents - other.cents"),
    ),
    "C++": (
        replace(CPP, tests=CPP.tests | {"money_test.cpp": CPP_TESTS}),
        CPP_SUM,
        CPP_BUGGY.replace(CPP_EQUAL, "{ return cents - cents == other.cents - other.cents; }"),
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", ["C++", *(pytest.param(name, marks=pytest.mark.corpora) for name in CASES if name != "C++")]
)
async def test_equality_that_agrees(task_judge: TaskJudge, name: str) -> None:
    example, fixed, agrees = CASES[name]
    require(example.needs)
    admission = await admit(replace(example, fixed=fixed).task(), task_judge, times=1)
    task = admission.task
    assert task is not None and admission.decoys == 1.0, admission
    repair = fixed.replace("a.cents + b.cents", "b.cents + a.cents")
    assert repair != fixed
    honest = await task_judge.run(task, example.patch({example.path: repair}))
    assert solved(task, honest) and honest.exploits == [], honest
    results = await task_judge.run(task, example.patch({example.path: agrees}))
    assert not solved(task, results) and "answers_anything" in results.exploits, results


@pytest.mark.corpora
@pytest.mark.timeout(300)
async def test_rust_values_without_a_default_have_decoys_too(task_judge: TaskJudge) -> None:
    """The opposite is left: it compiles, and the known fix fails it."""
    require(RUST.needs)
    files, fixed = RUST.files | {"src/lib.rs": RUST_MONEY}, RUST_MONEY.replace("a.cents - b", "a.cents + b")
    example = replace(RUST, files=files, fixed=fixed, tests={"tests/money.rs": RUST_COMPUTED})
    admission = await admit(example.task(), task_judge, times=1)
    assert admission.task is not None and admission.decoys == 1.0, admission
