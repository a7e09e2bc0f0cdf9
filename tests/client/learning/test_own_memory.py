"""A site's memory is solved from its key store when it is asked for, and forgets with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning import contribution
from fedmunkey.client.learning.contribution import read_numbered, sum_records
from fedmunkey.client.learning.held_out import OwnHeldOut
from fedmunkey.client.learning.own_memory import (
    CaseMixes,
    answer,
    evaluate_held_out,
    evaluate_mixes,
    joined,
    mix_weights,
    read_memory,
)
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import folds_of
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.memory import Kernel
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import CLASSES, FEATURES, Fill, Make, Order

READ = FeatureMap(FEATURES, 10)
FROZEN: dict[str, Any] = {"image_path": ImagePath.FROZEN, "input_shape": FEATURES}


@pytest.fixture
def release(make_store: Make, fill: Fill) -> Release:
    """Weights that were solved for elsewhere."""
    elsewhere = make_store(**FROZEN)
    fill(elsewhere, range(100, 180))
    sums = sum_records(elsewhere, READ, CLASSES, permanent_only=False).sums
    choice = Choice(RIDGES[4], TEMPERATURES[3], 0.5, 0.5)
    return Release(shared_weights(sums, RIDGES[4]), left_out_weights(sums)[4], choice, READ, "encoder-1", {})


def bytes_of(store: KeyStore, release: Release) -> tuple[object, ...]:
    memory, labels = read_memory(store, release)
    return memory.kernel, memory.temperature, memory.weights.tobytes(), memory.tokens.tobytes(), labels.tolist()


@pytest.mark.parametrize("count", [8, 50])
def test_memory_after_a_deletion_is_that_of_a_site_that_never_had_the_record(
    make_store: Make, fill: Fill, order: Order, release: Release, count: int
) -> None:
    store, never = make_store(**FROZEN), make_store(**FROZEN)
    fill(store, range(count), labels=[1] * count)
    fill(never, [row for row in range(count) if row not in (2, 5)], labels=[1] * (count - 2))
    before = bytes_of(store, release)
    assert before[0] is not Kernel.NONE

    store.orders.apply(order(1, 2, 5))

    assert bytes_of(store, release) == bytes_of(never, release) != before


def test_memory_after_arrivals_is_that_of_a_site_that_had_them_at_once(
    make_store: Make, fill: Fill, release: Release
) -> None:
    store, other = make_store(**FROZEN), make_store(**FROZEN)
    fill(store, range(10))
    fill(store, range(10, 40))
    fill(other, range(40))

    assert bytes_of(store, release) == bytes_of(other, release)


def test_answers_do_not_depend_on_blocks_or_on_what_is_asked_together(
    make_store: Make, fill: Fill, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(**FROZEN)
    fill(store, range(50), labels=[2] * 50)
    fill(store, range(60, 70), split=Split.TEST)
    before = bytes_of(store, release)
    memory, _ = read_memory(store, release)
    asked = joined(list(read_numbered(store, READ, Split.TEST)), READ.size)

    monkeypatch.setattr(contribution, "_BLOCK", 7)

    assert bytes_of(store, release) == before
    whole = answer(release, memory, asked.numbers)
    alone = answer(release, memory, asked.numbers[3:4])
    assert alone.own.tobytes() == whole.own[3:4].tobytes()
    assert alone.federation.tobytes() == whole.federation[3:4].tobytes()
    assert np.allclose(whole.own.sum(1), 1)


def test_memory_knows_the_sites_own_case_mix(make_store: Make, fill: Fill, release: Release) -> None:
    store = make_store(**FROZEN)
    fill(store, range(50), labels=[2] * 50)
    fill(store, range(60, 80), split=Split.TEST, labels=[2] * 20)

    found = evaluate_held_out(store, release, OwnHeldOut(), [Split.TEST])[Split.TEST]

    assert found.examples == 20
    assert found.own_accuracy > 0.6 > 0.4 > found.accuracy
    assert found.own_loss < found.loss


def test_split_without_a_record_has_no_results(make_store: Make, fill: Fill, release: Release) -> None:
    store = make_store(**FROZEN)
    fill(store, range(5))

    found = evaluate_held_out(store, release, OwnHeldOut(), [Split.TEST])[Split.TEST]

    assert found.examples == 0
    assert all(math.isnan(value) for name, value in vars(found).items() if name != "examples")


def test_records_count_as_often_as_their_class_occurs_in_the_bank() -> None:
    labels, bank = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 3])

    weights = mix_weights(labels, bank, CLASSES)

    assert weights.tolist() == [1 / 3, 1 / 3, 1 / 3, 3, 0]
    own = np.eye(CLASSES)[[0, 1, 1, 1, 0]] * 0.97 + 0.01 * (1 - np.eye(CLASSES)[[0, 1, 1, 1, 0]])
    federation = np.full((5, CLASSES), 0.25)
    found = evaluate_mixes(CaseMixes(federation, own), labels, bank)
    assert found.own_accuracy == pytest.approx((1 / 3 + 3) / 4)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.loss == pytest.approx(math.log(4))
    expected = (-math.log(0.97) * (1 / 3 + 3) - math.log(0.01) * 2 / 3) / 4
    assert found.own_loss == pytest.approx(expected)


def test_bank_of_other_classes_than_were_held_out_has_no_accuracy_of_its_own() -> None:
    answers = CaseMixes(np.full((2, CLASSES), 0.25), np.full((2, CLASSES), 0.25))

    found = evaluate_mixes(answers, np.array([0, 1]), np.array([3]))

    assert math.isnan(found.own_accuracy)
    assert found.accuracy == 0.5


def delete_amid(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    read, calls = folds_of, []

    def deleting(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            act()
        return read(*given)

    monkeypatch.setattr(contribution, "folds_of", deleting)


def test_deletion_amid_solving_starts_it_again(
    make_store: Make, fill: Fill, order: Order, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, never = make_store(**FROZEN), make_store(**FROZEN)
    fill(store, range(20))
    fill(never, range(19))
    delete_amid(monkeypatch, lambda: store.orders.apply(order(1, 19)))

    assert bytes_of(store, release) == bytes_of(never, release)
