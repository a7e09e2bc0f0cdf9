"""Judging a model with a bank, and what is left of it without its image, its memory or any model."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank, HeldOut
from fedmunkey.client.learning.evaluation import evaluate, neighbour_votes, predict, predict_image_only
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NONE, NeighbourLists
from fedmunkey.common.model.recipe import Reading, Recipe
from fedmunkey.common.settings.settings import ImagePath, Settings
from tests.client.conftest import Opinionated

CLASSES = 4


@pytest.fixture
def model(opinionated: Opinionated) -> Munkey:
    torch.manual_seed(0)
    return opinionated(Munkey(ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, CLASSES, 16, 1, 2, 8))).eval()


@pytest.fixture
def reading(small: Settings) -> Reading:
    return Recipe.of(small).reading


def bank_of(labels: list[int], size: int = 8) -> Bank:
    count = len(labels)
    tokens = Tokens.zeros(count, size)
    tokens.offsets[:] = torch.randn(count, size, generator=torch.Generator().manual_seed(1))
    inputs = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    permanent = torch.zeros(count, dtype=torch.bool)
    return Bank(0, np.arange(count), torch.tensor(labels).long(), inputs, tokens, lists_of([[]] * count), permanent)


def lists_of(rows: list[list[int]], length: int = 6) -> NeighbourLists:
    lists = NeighbourLists.empty(len(rows), length)
    for index, row in enumerate(rows):
        lists.indices[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        lists.similarities[index, : len(row)] = torch.linspace(1, 0.5, len(row))
    return lists


def held_out_of(rows: list[list[int]], labels: list[int]) -> HeldOut:
    draw = torch.Generator().manual_seed(2)
    inputs = torch.randint(0, 256, (len(rows), 1, 8, 8), generator=draw, dtype=torch.uint8)
    return HeldOut(inputs, torch.tensor(labels, dtype=torch.int64), lists_of(rows))


def test_neighbours_vote_with_their_labels(reading: Reading) -> None:
    bank = bank_of([0, 1, 1, 2, 3, 2, 2])
    # Only the first three vote, and in the second row, where they disagree, the nearest breaks the tie.
    lists = lists_of([[0, 1, 2, 3], [3, 0, 1], [4], [1, 2, 0, 3, 5, 6], []])

    votes = neighbour_votes(bank, lists, reading.neighbours, CLASSES)

    assert votes.argmax(1)[:4].tolist() == [1, 2, 3, 1]
    assert torch.allclose(votes[:4].sum(1), torch.ones(4))
    assert votes[3, 2] == 0
    assert votes[4].tolist() == [0.0] * CLASSES


def test_nearest_entry_of_the_classes_that_are_tied_breaks_the_tie(small: Settings) -> None:
    bank = bank_of([0, 1, 1, 2, 2])
    neighbours = Recipe.of(small.replace(neighbours=5)).neighbours

    votes = neighbour_votes(bank, lists_of([[0, 3, 1, 2, 4], [0, 1, 3, 4, 2], [3, 1, 2, 4, 0]]), neighbours, CLASSES)

    # The nearest entry of the first two rows is of a class with fewer votes than the two that are tied.
    assert votes.argmax(1).tolist() == [2, 1, 2]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("classes", "size"), [(2, 8), (3, 8), (10, 16), (100, 128)])
@pytest.mark.parametrize("neighbours", [1, 2, 3, 4, 8])
def test_first_weights_answer_as_the_nearest_neighbours_vote(
    small: Settings, classes: int, size: int, neighbours: int, depth: int
) -> None:
    settings = small.replace(num_classes=classes, neighbours=neighbours)
    draws = torch.Generator().manual_seed(neighbours)
    bank, rows = bank_of([row % classes for row in range(200)], size), 300
    bank.tokens.offsets.zero_()
    lists = NeighbourLists(torch.randint(0, 200, (rows, neighbours), generator=draws), torch.ones(rows, neighbours))
    # Some lists are short.
    lists.indices[::5, neighbours // 2 + 1 :] = NONE
    inputs = torch.randint(0, 256, (rows, 1, 8, 8), generator=draws, dtype=torch.uint8)
    torch.manual_seed(0)
    model = Munkey(ModelShape(ImagePath.PATCHES, (1, 8, 8), 4, classes, 16, depth, 2, size)).eval()

    votes = neighbour_votes(bank, lists, Recipe.of(settings).neighbours, classes)

    tied = votes.topk(2).values.diff().abs() < 0.01
    assert tied.any() == (neighbours > 1)
    for image_vote in (False, True):
        answers = predict(model, bank, inputs, lists, Recipe.of(settings.replace(image_vote=image_vote)).reading)
        assert torch.equal(answers.argmax(1), votes.argmax(1))


def test_results_are_those_of_the_predictions(model: Munkey, reading: Reading) -> None:
    bank = bank_of([0, 1, 2, 3, 0])
    held_out = held_out_of([[0, 1, 2], [4, 0, 1], [3, 2, 1], [2, 3, 4]], [0, 0, 3, 1])

    results = evaluate(model, bank, held_out, reading)

    full = predict(model, bank, held_out.inputs, held_out.lists, reading)
    image = predict_image_only(model, held_out.inputs)
    memory = predict(model, bank, held_out.inputs, held_out.lists, reading, image=False)
    right = [(p.argmax(1) == held_out.labels).float().mean().item() for p in (full, image, memory)]
    assert [results.accuracy, results.image_accuracy, results.memory_accuracy] == right
    assert results.loss == pytest.approx(-full[range(4), held_out.labels].log().mean().item())
    assert results.neighbour_accuracy == 0.75
    assert results.examples == 4
    assert torch.allclose(full.sum(1), torch.ones(4))


def test_memory_alone_does_not_see_the_image(model: Munkey, reading: Reading) -> None:
    bank = bank_of([0, 1, 2, 3])
    rows = [[0, 1, 2], [3, 1, 0]]
    held_out, other = held_out_of(rows, [0, 3]), held_out_of(rows, [0, 3])
    other.inputs[:] = 255 - other.inputs

    def predictions(records: HeldOut, *, image: bool) -> torch.Tensor:
        return predict(model, bank, records.inputs, records.lists, reading, image=image)

    assert torch.equal(predictions(held_out, image=False), predictions(other, image=False))
    assert not torch.equal(predictions(held_out, image=True), predictions(other, image=True))
    assert not torch.allclose(predictions(held_out, image=True), predictions(held_out, image=False))


def test_image_alone_does_not_see_the_memory(model: Munkey, reading: Reading) -> None:
    held_out = held_out_of([[0], [0]], [0, 1])

    with_bank = evaluate(model, bank_of([0, 1]), held_out, reading).image_accuracy
    without = evaluate(model, bank_of([]), held_out_of([[], []], [0, 1]), reading).image_accuracy

    assert with_bank == without


def test_empty_bank_predicts_from_the_image(model: Munkey, reading: Reading) -> None:
    held_out = held_out_of([[], [], []], [0, 1, 2])

    full = predict(model, bank_of([]), held_out.inputs, held_out.lists, reading)

    assert torch.allclose(full, predict_image_only(model, held_out.inputs), atol=1e-6)
    assert evaluate(model, bank_of([]), held_out, reading).examples == 3
    assert not neighbour_votes(bank_of([]), held_out.lists, reading.neighbours, CLASSES).any()


@pytest.mark.parametrize("labels", [[0, 1, 2], []])
def test_nothing_held_out_gives_no_number(model: Munkey, reading: Reading, labels: list[int]) -> None:
    results = dataclasses.asdict(evaluate(model, bank_of(labels), held_out_of([], []), reading))

    assert results.pop("examples") == 0
    assert [name for name, value in results.items() if not math.isnan(value)] == []


def test_batches_do_not_change_predictions(model: Munkey, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of([0, 1, 2, 3])
    held_out = held_out_of([[n % 4, (n + 1) % 4] for n in range(7)], [0] * 7)

    def predictions() -> list[torch.Tensor]:
        whole = predict(model, bank, held_out.inputs, held_out.lists, reading)
        memory = predict(model, bank, held_out.inputs, held_out.lists, reading, image=False)
        return [whole, memory, predict_image_only(model, held_out.inputs)]

    at_once = predictions()
    monkeypatch.setattr("fedmunkey.client.learning.evaluation._BATCH", 3)

    for whole, parts in zip(at_once, predictions(), strict=True):
        assert torch.allclose(whole, parts, atol=1e-6)


def test_absent_places_of_lists_are_not_read(model: Munkey, reading: Reading) -> None:
    bank = bank_of([0, 1])
    held_out = held_out_of([[1]], [0])
    assert held_out.lists.indices[0, 1] == NONE

    before = predict(model, bank, held_out.inputs, held_out.lists, reading)
    bank.tokens.offsets[0] += 5
    after = predict(model, bank, held_out.inputs, held_out.lists, reading)

    assert torch.equal(before, after)
