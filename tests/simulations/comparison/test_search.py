"""The search for settings looks at validation records only, and what it takes is never worse there than the paper's."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.comparison.search import TRIES, Searched, Tried, on_validation, search
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.unlearning.method import Budget, Method
from fedmunkey.simulations.unlearning.registry import METHODS

FAMILIES = sorted({method.family.name for method in METHODS.values()})


@pytest.fixture
def question(settings: Settings) -> Question:
    quick = settings.replace(random_features=50, num_rounds=2)
    return Question(quick, 3, math.inf, 0.0, 0.2, "random+canaries", Budget(1))


def methods_of(family: str) -> list[Method[Any]]:
    return [method for method in METHODS.values() if method.family.name == family]


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_settings_are_never_worse_than_the_papers_on_validation_records(
    question: Question, everything: Encoded, family: str
) -> None:
    methods = methods_of(family)

    found = search(question, everything, methods, 0)

    searched = {one.name for one in methods if len(one.choices) > 1} | {family}
    assert {one.name for one in found} == searched
    for one in found:
        assert one.tried[0].values == {}
        assert one.chosen.score >= one.tried[0].score
        assert len(one.tried) == TRIES


def test_everybody_has_as_many_tries() -> None:
    families = {method.family.name: method.family for method in METHODS.values()}

    assert {len(family.choices) for family in families.values()} == {TRIES}
    # Nothing and retraining have nothing to choose but how they learn.
    assert {len(method.choices) for method in METHODS.values()} == {1, TRIES}
    alone = {name.removesuffix("-linear") for name, one in METHODS.items() if len(one.choices) == 1}
    assert alone == {"nothing", "retraining", "sisa"} | {n for n, f in families.items() if f.forgets_by_design}


@pytest.mark.parametrize("name", METHODS)
def test_every_choice_is_a_number_of_the_method_or_a_setting_of_the_family(name: str, settings: Settings) -> None:
    method = METHODS[name]
    for values in method.choices:
        changed = method.chosen(values)
        assert {one: getattr(changed, one) for one in values} == dict(values)
    for values in method.family.choices:
        assert (Settings.parse({**settings.to_config(), **values}) != settings) is bool(values)
    with pytest.raises(ValueError, match=f"{name} has no sourdough"):
        method.chosen({"sourdough": 1.0})


def test_changing_a_method_leaves_the_registered_one_as_it_is() -> None:
    before = dict(vars(METHODS["ssd"]))

    assert METHODS["ssd"].chosen({"portion": 7.0}) is not METHODS["ssd"]

    assert vars(METHODS["ssd"]) == before


def test_test_records_decide_nothing(question: Question, everything: Encoded) -> None:
    methods = [METHODS["nothing-linear"], METHODS["fine-tuning-linear"]]
    test = everything.records.splits == Split.TEST.value
    labels = np.where(test, (everything.records.labels + 1) % 10, everything.records.labels)
    other = Encoded(dataclasses.replace(everything.records, labels=labels), everything.encoding)
    validation = everything.records.splits == Split.VAL.value
    changed = np.where(validation, (everything.records.labels + 1) % 10, everything.records.labels)
    spoiled = Encoded(dataclasses.replace(everything.records, labels=changed), everything.encoding)

    found = [one.to_json() for one in search(question, everything, methods, 0)]

    assert found == [one.to_json() for one in search(question, other, methods, 0)]
    assert found != [one.to_json() for one in search(question, spoiled, methods, 0)]


def test_federation_of_the_search_is_none_that_is_compared(question: Question, everything: Encoded) -> None:
    case = on_validation(question.case(everything, 0))

    assert {one.test.records.splits.tolist()[0] for one in case.hospitals} == {Split.VAL.value}
    first, second = (search(question, everything, [METHODS["nothing-linear"]], seed) for seed in (0, 1))
    assert first != second


def test_search_for_one_try_only_has_nothing_to_find(question: Question, everything: Encoded) -> None:
    assert search(question, everything, methods_of("linear"), 0, 1) == []


def test_data_without_validation_records_is_refused(question: Question, everything: Encoded) -> None:
    without = everything.select(everything.records.splits != Split.VAL.value)

    with pytest.raises(InvalidDataset, match="no validation records to search settings on; give --tries 1"):
        search(question, without, methods_of("linear"), 0)


def test_best_score_is_chosen_and_of_equal_ones_the_first() -> None:
    tried = [Tried({}, 80.0, 2.0), Tried({"a": 1}, 82.0, 4.0), Tried({"a": 2}, 81.0, 2.5), Tried({"a": 3}, math.nan)]

    assert Searched("x", learning=False, tried=tried).chosen is tried[2]
    assert Searched("x", learning=False, tried=tried[:2]).chosen is tried[0]
    assert [one.words for one in tried[:2]] == ["as published", "a = 1"]


def test_it_is_read_as_it_was_written() -> None:
    one = Searched("x", learning=True, tried=[Tried({"learning-rate": 5e-4}, 80.0), Tried({}, math.nan, 1.0)])

    again = Searched.from_json(json.loads(json.dumps(one.to_json())))

    assert again.to_json() == one.to_json()
    assert math.isnan(again.tried[0].gap)
    assert (again.name, again.learning, again.tried[0].values) == ("x", True, {"learning-rate": 5e-4})
