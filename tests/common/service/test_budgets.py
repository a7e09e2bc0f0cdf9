from __future__ import annotations

import pytest

from fedmunkey.common.service import budgets
from fedmunkey.common.service.budgets import Allowance, Budgets


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_budget_comes_back_in_time_and_never_exceeds_what_there_is_at_once() -> None:
    clock = Clock()
    spent = Budgets(Allowance(at_once=3, a_second=0.5), clock=clock)

    assert [spent.spend("a") for _ in range(4)] == [0, 0, 0, 2]
    clock.now = 1.0
    assert spent.spend("a") == 1.0
    clock.now = 2.0
    assert spent.spend("a") == 0
    clock.now = 1_000.0
    assert [spent.spend("a") for _ in range(4)] == [0, 0, 0, 2]


def test_each_spends_its_own() -> None:
    spent = Budgets(Allowance(at_once=1, a_second=1), clock=Clock())

    assert spent.spend("a") == 0
    assert spent.spend("a") == 1
    assert spent.spend("b") == 0


def test_amount_above_what_there_is_at_once_is_possible_but_takes_all_of_it() -> None:
    spent = Budgets(Allowance(at_once=10, a_second=1), clock=Clock())

    assert spent.spend("a", 1_000) == 0
    assert spent.spend("a", 4) == 4


def test_spenders_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "_MOST_KEPT", 2)
    spent = Budgets(Allowance(at_once=1, a_second=0.001), clock=Clock())

    for who in ("a", "b", "c"):
        assert spent.spend(who) == 0
    assert spent.spend("c") > 0
    # Forgotten, so it has its budget again.
    assert spent.spend("a") == 0
