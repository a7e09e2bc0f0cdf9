"""TA, RA, FA and MIA on hand-made cases: each image says what the model answers to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import Reading
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation import answers, measurement
from fedmunkey.simulations.federation.answers import HospitalBank, MunkeyAnswers
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.measurement import Measurement, measure
from tests.simulations.given_records import train_rows
from tests.simulations.tiny_hospitals import hospital_of

SHAPE = ModelShape(ImagePath.PATCHES, (1, 1, 2), 1, num_classes=2, width=8, depth=1, heads=1, exemplar_size=2)
SETTINGS = Settings(num_classes=2, neighbours=2)
NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)

Record = tuple[Split, int, int]
"""A record's split, its label (0 or 1) and the percentage that the model gives to class 1."""


def hospital(name: str, records: Sequence[Record]) -> Hospital:
    images = np.array([[[[share, 0]]] for _, _, share in records], dtype=np.uint8)
    return hospital_of(name, images, [label for _, label, _ in records], [split for split, _, _ in records])


def bank_with(place: Hospital, rows: Sequence[int]) -> HospitalBank:
    count, entries = len(rows), np.array(rows, dtype=np.int64)
    chosen = place.given.select(entries)
    labels, images = torch.from_numpy(chosen.records.labels), torch.from_numpy(chosen.records.images)
    lists, permanent = NeighbourLists.empty(count, 2), torch.zeros(count, dtype=torch.bool)
    bank = Bank(0, entries, labels, images, Tokens.zeros(count, 2), lists, permanent)
    return HospitalBank(bank, chosen.encoding.keys)


def said(model: Munkey, inputs: Tensor) -> Tensor:
    del model
    share = inputs[:, 0, 0, :1].float() / 100
    return torch.cat([1 - share, share], dim=1)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Bank, NeighbourLists]]:
    """Let images answer in place of the model; note which bank was asked, and with which neighbours."""
    asked: list[tuple[Bank, NeighbourLists]] = []

    def answer(model: Munkey, bank: Bank, inputs: Tensor, lists: NeighbourLists, reading: Reading) -> Tensor:
        del reading
        asked.append((bank, lists))
        return said(model, inputs)

    monkeypatch.setattr(answers, "predict", answer)
    monkeypatch.setattr(answers, "predict_image_only", said)
    return asked


def found(
    hospitals: Sequence[Hospital],
    forgotten: Mapping[str, Sequence[int]],
    *,
    gone: Mapping[str, Sequence[int]] | None = None,
    banks: Mapping[str, HospitalBank] | None = None,
    canaries: Mapping[str, Sequence[int]] | None = None,
) -> Measurement:
    def rows(chosen: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        return {h.name: np.array(chosen.get(h.name, NOTHING), dtype=np.int64) for h in hospitals}

    banks = banks or {h.name: bank_with(h, train_rows(h).tolist()) for h in hospitals}
    federation = MunkeyAnswers(Munkey(SHAPE), banks, SETTINGS)
    planted = None if canaries is None else rows(canaries)
    return measure(federation, hospitals, rows(forgotten), rows(gone or forgotten), planted)


FIRST = hospital(
    "first",
    [
        (Split.TEST, 1, 80),  # right
        (Split.TEST, 0, 60),  # wrong
        (Split.VAL, 0, 99),  # neither tested nor trained on
        (Split.TRAIN, 1, 90),  # right
        (Split.TRAIN, 0, 70),  # wrong
        (Split.TRAIN, 0, 10),  # right
    ],
)
SECOND = hospital("second", [(Split.TEST, 0, 0), (Split.TRAIN, 1, 30), (Split.TRAIN, 1, 100)])


def test_test_accuracy_and_macro_f1_count_each_hospital_once_and_of_nothing_forgotten_there_is_nothing_to_say() -> None:
    measured = found([FIRST, SECOND], {})

    # One of two at the first, one of one at the second: 75, not the 67 of all three together.
    assert measured.test_accuracy == 75
    # At the first both answers are class 1: F1 2/3 for class 1 and 0 for class 0.
    assert measured.test_macro_f1 == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert math.isnan(measured.forget_accuracy)
    assert math.isnan(measured.membership)
    assert measured.forget_confidence == ()


def test_forget_accuracy_is_over_the_forgotten_records_and_retain_accuracy_over_the_others() -> None:
    measured = found([FIRST, SECOND], {"first": [3], "second": [1]})
    another_went_before = found([FIRST], {"first": [3]}, gone={"first": [3, 4]})

    assert measured.forget_accuracy == 50
    assert measured.retain_accuracy == pytest.approx(100 * 2 / 3)
    assert measured.forget_confidence == pytest.approx((0.9, 0.3))
    assert (another_went_before.forget_accuracy, another_went_before.retain_accuracy) == (100, 100)


def test_membership_compares_forgotten_records_with_test_records_of_their_hospital() -> None:
    # Forgotten: 0.9; tested there: 0.8 and 0.4. The second hospital's test record, 1.0, has nobody to be compared with.
    assert found([FIRST, SECOND], {"first": [3]}).membership == 100
    # Forgotten: 0.3 is below both.
    assert found([FIRST], {"first": [4]}).membership == 0
    # Forgotten: 0.9 and 1.0; tested: 0.8, 0.4 and 1.0. Of six pairs four are in order, and one is equal.
    assert found([FIRST, SECOND], {"first": [3], "second": [2]}).membership == pytest.approx(100 * 4.5 / 6)


def test_canary_is_remembered_where_its_wrong_label_is_the_answer() -> None:
    # Of rows 3, 4 and 5 the model repeats the labels of the first and the last.
    assert found([FIRST], {"first": [3, 4]}, canaries={"first": [3, 4]}).canary_recall == 50
    both = found([FIRST, SECOND], {"first": [3, 4, 5], "second": [2]}, canaries={"first": [4, 5], "second": [2]})
    assert both.canary_recall == pytest.approx(100 * 2 / 3)


def test_canaries_count_in_no_other_figure() -> None:
    forgotten = {"first": [3, 4], "second": [1]}

    with_canary = found([FIRST, SECOND], forgotten, canaries={"first": [4]})

    honest = found([FIRST, SECOND], {"first": [3], "second": [1]}, gone=forgotten)
    for figure in ("four", "forget_confidence", "membership_tpr", "weights_membership"):
        assert getattr(with_canary, figure) == getattr(honest, figure)
    # It would have.
    assert with_canary.forget_accuracy != found([FIRST, SECOND], forgotten).forget_accuracy


def test_no_canaries_have_no_recall_and_canaries_alone_leave_nothing_to_tell_apart() -> None:
    assert math.isnan(found([FIRST], {"first": [3]}).canary_recall)
    assert math.isnan(found([FIRST], {"first": [3]}, canaries={}).canary_recall)

    alone = found([FIRST], {"first": [3, 4]}, canaries={"first": [3, 4]})

    figures = alone.forget_accuracy, alone.membership, alone.membership_tpr, alone.weights_membership
    assert all(map(math.isnan, figures))
    assert alone.forget_confidence == alone.test_confidence == ()


def test_true_positives_are_those_above_all_but_one_in_a_hundred_test_records() -> None:
    # With two test records, 0.8 and 0.4, none may be taken for a forgotten one: 0.9 of 0.9 and 0.3 is found.
    assert found([FIRST], {"first": [3, 4]}).membership_tpr == 50
    # With a hundred, the surest may: 0.9 is then found behind a test record that is as sure as can be.
    records = [(Split.TEST, 1, 100), *[(Split.TEST, 1, 50)] * 99, (Split.TRAIN, 1, 90), (Split.TRAIN, 1, 40)]
    assert found([hospital("first", records)], {"first": [100, 101]}).membership_tpr == 50
    assert found([hospital("first", records[:99] + records[100:])], {"first": [99, 100]}).membership_tpr == 0


def test_shared_weights_are_asked_without_a_bank(
    asked: list[tuple[Bank, NeighbourLists]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "predict_image_only", lambda model, inputs: said(model, inputs).flip(1))

    measured = found([FIRST], {"first": [3]})

    # With the bank 0.9 lies above 0.8 and 0.4; the weights alone say 0.1, below 0.2 and 0.6.
    assert measured.membership == 100
    assert measured.weights_membership == 0
    assert len(asked) == 3


def test_every_record_is_asked_at_its_own_hospital_and_a_deleted_one_does_not_find_itself(
    asked: list[tuple[Bank, NeighbourLists]],
) -> None:
    banks = {"first": bank_with(FIRST, [3, 5]), "second": bank_with(SECOND, [1, 2])}

    found([FIRST, SECOND], {"first": [4]}, banks=banks)

    assert [bank for bank, _ in asked] == [banks["first"].bank] * 3 + [banks["second"].bank] * 2
    _, (_, retained), (_, forgotten), *_ = asked
    assert (retained.similarities[:, 0] == 1).all()
    assert (forgotten.similarities < 1).all()


def test_hospital_without_entries_does_not_count_as_tested() -> None:
    banks = {"first": bank_with(FIRST, [3, 4, 5]), "second": bank_with(SECOND, [])}

    measured = found([FIRST, SECOND], {"second": [1, 2]}, banks=banks)

    assert measured.test_accuracy == 50
    assert measured.forget_accuracy == 50


def test_many_retained_records_are_thinned_evenly(
    asked: list[tuple[Bank, NeighbourLists]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "_RETAINED", 4)
    records = [(Split.TEST, 0, 0), *[(Split.TRAIN, row % 2, 0) for row in range(10)]]

    measured = found([hospital("first", records)], {})

    assert len(asked[1][1].indices) == 4
    # Every third record of labels 0, 1, 0, 1, ...: rows 0, 3, 6 and 9.
    assert measured.retain_accuracy == 50


def test_gap_is_the_mean_absolute_difference_of_the_four() -> None:
    ours = Measurement(90, 95, 80, 55, test_macro_f1=10)
    oracle = Measurement(92, 94, 70, 50, test_macro_f1=99)

    assert ours.gap(oracle) == pytest.approx((2 + 1 + 10 + 5) / 4)
    assert ours.gap(ours) == 0
