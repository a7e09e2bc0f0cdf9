"""Tokens that a site answers with while a run changes them, after one was cut off, and after going back to another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from flwr.app import MessageType

from fedmunkey.client.learning.answering_tokens import AnsweringWeights, read_answering_tokens
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.model import Munkey
from tests.client.one_site import TRAIN, Federation, Make, deletion_service, tokens_of

pytestmark = pytest.mark.usefixtures("within_a_run")

Rows = list[list[float]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with deletion_service(tmp_path) as make:
        yield make


def answered_with(federation: Federation) -> Rows:
    """Return the tokens that `predict` reads, of all entries that are there."""
    path = federation.folder.shared_weights
    answering = AnsweringWeights.of(read_checkpoint(path)) if path.exists() else None
    with federation.folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        rows: Rows = read_answering_tokens(store, answering, entries).offsets.tolist()
        return rows


def run(federation: Federation, seed: int, *, rounds: int = 1, again: int = 0, ends: bool = True) -> Munkey:
    """Train for some rounds from weights of a seed; return what sites answer from if the run ends."""
    torch.manual_seed(seed)
    model = Munkey(federation.model.shape)
    for number in range(1, rounds + 1):
        assert federation.ask(MessageType.TRAIN, model=model, server_round=number).has_content()
        federation.ask(MessageType.EVALUATE, model=model, ends_run=int(ends and number == rounds), again=again)
    return model


def zeros(count: int = TRAIN) -> Rows:
    return [[0.0] * 8] * count


def test_first_run_that_is_cut_off_leaves_a_site_without_tokens_to_answer_with(make: Make) -> None:
    federation = make()

    run(federation, 1, ends=False)

    assert tokens_of(federation) != zeros()
    assert answered_with(federation) == zeros()


def test_site_answers_with_the_tokens_of_the_last_run_that_ended_whatever_comes_after_it(make: Make) -> None:
    federation = make()
    run(federation, 1, rounds=2)
    first = answered_with(federation)
    assert first == tokens_of(federation) != zeros()

    run(federation, 2, rounds=2, ends=False)
    assert tokens_of(federation) != first
    assert answered_with(federation) == first
    run(federation, 3, rounds=1, ends=False)
    assert answered_with(federation) == first

    run(federation, 4, rounds=2)
    assert answered_with(federation) == tokens_of(federation) != first


def test_deletion_reaches_kept_tokens_and_arrivals_begin_without_one(make: Make) -> None:
    federation = make()
    run(federation, 1)
    first = answered_with(federation)
    run(federation, 2, ends=False)

    federation.delete(3)

    assert answered_with(federation) == [*first[:3], *first[4:]]


def test_going_back_to_the_run_before_brings_its_tokens_and_to_an_older_one_none(make: Make) -> None:
    federation = make()
    oldest = run(federation, 1)
    before = run(federation, 2)
    tokens_before = answered_with(federation)
    run(federation, 3)
    assert answered_with(federation) != tokens_before

    federation.ask(MessageType.EVALUATE, model=before, take_over=1, ends_run=1, again=1)
    assert answered_with(federation) == tokens_before

    federation.ask(MessageType.EVALUATE, model=oldest, take_over=1, ends_run=1, again=1)
    assert answered_with(federation) == zeros()
    run(federation, 4, ends=False)
    assert answered_with(federation) == zeros()
