"""The Flower ClientApp, with real messages, key stores of digits and a deletion service on this machine."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import MessageType

from fedmunkey.client.key_store import HeldRecords, KeyStore
from fedmunkey.client.learning.bank import Bank, read_bank
from fedmunkey.client.learning.training import train
from fedmunkey.client.rounds import descended, turn
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.round_messages import ARRAYS, METRICS, SITE
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from tests.client.one_site import (
    ENCODER,
    NAME,
    TEST,
    TRAIN,
    VAL,
    Federation,
    Make,
    delete_during_training,
    digits,
    reason_of,
    same,
    tokens_of,
    weights_of,
)
from tests.closed_port import closed_port
from tests.coordinator import running_coordinator


@pytest.fixture
def federation(make_federation: Make) -> Federation:
    return make_federation()


# What a reply holds.


def test_training_replies_with_weights_numbers_and_a_name_only(federation: Federation) -> None:
    reply = federation.ask(MessageType.TRAIN)

    assert set(reply.content) == {ARRAYS, METRICS, SITE}
    shapes = {name: weights.shape for name, weights in federation.model.state_dict().items()}
    assert {name: weights.shape for name, weights in weights_of(reply).items()} == shapes
    assert set(reply.content.metric_records[METRICS]) == {"num-examples", "train-loss"}
    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN
    assert dict(reply.content.config_records[SITE]) == {SITE: NAME}


def test_training_starts_from_the_weights_that_came_and_is_that_of_the_bank(federation: Federation) -> None:
    reply = federation.ask(MessageType.TRAIN, proximal_mu=0.5)

    expected = Munkey(federation.model.shape)
    expected.load_state_dict(federation.model.state_dict())
    with federation.folder.open() as store:
        bank = read_bank(store, 3)
        tokens = store.records.read_tokens(bank.entries)
    bank.tokens.offsets[:] = bank.tokens.first_moments[:] = bank.tokens.second_moments[:] = 0
    bank.tokens.steps[:] = 0
    draws = generator(federation.settings.seed, NAME, 1)
    train(expected, bank, Recipe.of(federation.settings), round_number=1, generator=draws, proximal_mu=0.5)
    assert same(weights_of(reply), dict(expected.state_dict()))
    assert torch.equal(bank.tokens.offsets, tokens.offsets)
    assert tokens.offsets.any()


def test_tokens_go_on_from_round_to_round(federation: Federation) -> None:
    federation.ask(MessageType.TRAIN)
    with federation.folder.open() as store:
        first = read_bank(store, 3).tokens.steps

    federation.ask(MessageType.TRAIN, server_round=2)

    with federation.folder.open() as store:
        second = read_bank(store, 3).tokens.steps
    assert (second > first).all()


def test_evaluation_replies_with_numbers_and_a_name_only(federation: Federation) -> None:
    reply = federation.ask(MessageType.EVALUATE)

    pathways = {"image-accuracy", "memory-accuracy", "sensitivity", "neighbour-accuracy"}
    names = {"examples", "loss", "accuracy", "macro-f1", *pathways}
    metrics = reply.content.metric_records[METRICS]
    assert set(reply.content) == {METRICS, SITE}
    of_splits = {f"{split}-{name}" for split in ("val", "test") for name in names}
    assert set(metrics) == {"entries", "num-examples", "selection-accuracy", *of_splits}
    assert (metrics["entries"], metrics["num-examples"], metrics["val-examples"]) == (TRAIN, TEST, VAL)
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_site_without_records_replies_that_it_has_none(make_federation: Make) -> None:
    federation = make_federation(records=digits().select(np.zeros(TRAIN + VAL + TEST, dtype=np.bool_)))

    reply = federation.ask(MessageType.TRAIN)

    metrics = reply.content.metric_records[METRICS]
    assert metrics["num-examples"] == 0
    assert math.isnan(float(str(metrics["train-loss"])))
    assert same(weights_of(reply), dict(federation.model.state_dict()))
    assert federation.ask(MessageType.EVALUATE).content.metric_records[METRICS]["entries"] == 0


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_broken_promise_is_refused_after_hearing_deletions(make_federation: Make, what: str) -> None:
    federation = make_federation(promised="exact")
    federation.order_deletion(3)

    refusal = reason_of(federation.ask(what))

    assert "promised its patients guarantee = exact, the federation has guarantee = empirical" in refusal
    assert federation.service.get("request-3").state.final


# Deletions.


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_site_forgets_before_it_does_anything_else(federation: Federation, what: str) -> None:
    federation.order_deletion(3, 5)

    reply = federation.ask(what)

    metrics = reply.content.metric_records[METRICS]
    assert metrics["num-examples" if what == MessageType.TRAIN else "entries"] == TRAIN - 2
    (progress,) = federation.service.get("request-3").sites
    assert progress.acknowledgement is not None
    assert progress.acknowledgement.records == 2
    assert progress.acknowledgement.guarantee is Guarantee.EMPIRICAL


@pytest.mark.parametrize("place", ["early", "last"])
def test_training_that_a_deletion_interrupts_is_that_without_the_record(
    make_federation: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    with monkeypatch.context() as patched:
        federation = make_federation()
        last = 3 if place == "early" else 24
        steps = delete_during_training(federation, patched, [3], lambda done, _: done == last)
        with caplog.at_level(logging.WARNING):
            interrupted = federation.ask(MessageType.TRAIN)
    # Three batches of the 24 entries make an epoch, and three of the 23.
    assert steps == [*range(1, 17 if place == "early" else 25), *range(1, 25)]
    assert "entries were deleted during training; this round's training starts again" in caplog.text

    # The ledger knows the order by now, so the other site has forgotten the record before it begins.
    before = make_federation("before")
    undisturbed = before.ask(MessageType.TRAIN)
    with_record = make_federation("never", digits())
    monkeypatch.setattr(turn, "catch_up_patiently", lambda *_, **__: [])
    ignorant = with_record.ask(MessageType.TRAIN)

    assert interrupted.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    assert same(weights_of(interrupted), weights_of(undisturbed))
    assert not same(weights_of(interrupted), weights_of(ignorant))
    assert tokens_of(federation) == tokens_of(before)


def test_deletion_after_tokens_were_written_is_heard(make_federation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = make_federation()
    write = HeldRecords.write_tokens

    def write_and_delete(self: HeldRecords, generation: int, entries: object, tokens: object, **used: object) -> None:
        patched.undo()
        write(self, generation, entries, tokens, **used)  # type: ignore[arg-type]
        federation.delete(3)

    with monkeypatch.context() as patched:
        patched.setattr(HeldRecords, "write_tokens", write_and_delete)
        reply = federation.ask(MessageType.TRAIN)

    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN - 1


def test_deletion_amid_an_evaluation_starts_it_again(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_and_delete(store: KeyStore, neighbours: int) -> Bank:
        patched.undo()
        bank = read_bank(store, neighbours)
        federation.delete(3)
        return bank

    with monkeypatch.context() as patched:
        patched.setattr(descended, "read_bank", read_and_delete)
        reply = federation.ask(MessageType.EVALUATE)

    assert reply.content.metric_records[METRICS]["entries"] == TRAIN - 1


# What goes wrong.


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_site_that_cannot_hear_deletions_does_not_learn(federation: Federation, what: str) -> None:
    with closed_port() as port:
        address = f"127.0.0.1:{port}"
        federation.settings = federation.settings.replace(deletion_service=address)

        reason = reason_of(federation.ask(what))

    assert reason.startswith(f"the deletion service at {address} cannot be reached: start it with munkey-server serve")
    with federation.folder.open() as store:
        assert store.records.count_trained() == 0


def test_site_shows_its_identity_and_does_not_learn_once_it_is_shut_out(federation: Federation, tmp_path: Path) -> None:
    with running_coordinator(tmp_path / "coordinator") as coordinator:
        coordinator.member(NAME).folder.rename(federation.folder.identity)
        TrustedKeys().write(federation.folder.trust)
        federation.settings = federation.settings.replace(deletion_service=coordinator.address)

        assert federation.ask(MessageType.TRAIN).has_content()
        coordinator.register.revoke(NAME, "it was stolen")
        reason = reason_of(federation.ask(MessageType.TRAIN))

    assert "was revoked" in reason
    assert reason.endswith(": it was stolen")


def test_fault_of_the_disk_is_a_reply_of_one_line(federation: Federation) -> None:
    federation.folder.shared_weights.mkdir()

    reason = reason_of(federation.ask(MessageType.EVALUATE, ends_run=1))

    assert reason.endswith("Is a directory; check the path, its permissions and the free space on its disk")


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_weights_of_another_model_are_refused(federation: Federation, what: str) -> None:
    shape = ModelShape.of(Recipe.of(federation.settings.replace(width=32)), ENCODER.feature_shape)

    reason = reason_of(federation.ask(what, model=Munkey(shape)))

    assert reason == "the coordinator sent weights of another model; check the site's settings"


@pytest.mark.parametrize("what", [MessageType.TRAIN, MessageType.EVALUATE])
def test_weights_that_are_not_finite_are_refused_and_those_that_are_there_stay(
    federation: Federation, what: str
) -> None:
    federation.ask(MessageType.EVALUATE, ends_run=1)
    kept = federation.folder.shared_weights.read_bytes()
    spoiled = Munkey(federation.model.shape)
    next(spoiled.parameters()).data.flatten()[0] = math.nan

    reason = reason_of(federation.ask(what, model=spoiled, ends_run=1))

    assert reason == "the coordinator sent weights that are not finite; the site keeps those that it has"
    assert federation.folder.shared_weights.read_bytes() == kept


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"num_classes": 5}, "num-classes = 5: this site has records of class 9"), ({"exemplar_size": 4}, "of 8 numbers")],
)
def test_store_for_other_settings_says_so(federation: Federation, changes: dict[str, int], reason: str) -> None:
    federation.settings = federation.settings.replace(**changes)

    assert reason in reason_of(federation.ask(MessageType.TRAIN))


def test_site_without_a_key_store_says_so(federation: Federation) -> None:
    federation.folder = SiteFolder(federation.folder.path / "elsewhere")

    assert "there is no key store" in reason_of(federation.ask(MessageType.TRAIN))


def test_threads_are_those_of_the_settings(federation: Federation) -> None:
    for threads in (2, 0):
        federation.settings = federation.settings.replace(threads=threads)
        federation.ask(MessageType.EVALUATE)
        assert torch.get_num_threads() == 2
