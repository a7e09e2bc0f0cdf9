"""State from before a deletion comes back: a node's context, weights of an older checkpoint, a record given anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, MessageType
from flwr.common.serde import context_from_proto, context_to_proto, message_to_proto

from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.programs.round_messages import ARRAYS, METRICS
from tests.client.one_site import ENCODER, SECRET, TRAIN, Make, digits, reason_of, same, weights_of

GONE = 3
"""The digit that is deleted."""


def entry_of(store: KeyStore, record: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    entries, _ = store.records.read_entries(Split.TRAIN)
    (place,) = (n for n, ids in enumerate(store.records.read_ids(entries)) if ids[0] == f"digit-{record}")
    return entries[place : place + 1]


# A node's context, which a SuperNode keeps from message to message.


def test_node_keeps_nothing_of_a_site_in_its_context(make_federation: Make) -> None:
    federation = make_federation()
    context = federation.context()
    before = context_to_proto(context).SerializeToString(deterministic=True)

    for what in (MessageType.TRAIN, MessageType.EVALUATE):
        assert federation.ask(what, context=context).has_content()

    assert len(context.state) == 0
    assert context_to_proto(context).SerializeToString(deterministic=True) == before


def test_node_that_reconnects_with_old_state_neither_learns_nor_sends_what_was_deleted(
    make_federation: Make,
) -> None:
    federation, other = make_federation(), make_federation("other")
    context = federation.context()
    assert federation.ask(MessageType.TRAIN, context=context).has_content()
    assert other.ask(MessageType.TRAIN).has_content()
    with federation.folder.open() as store:
        entry = entry_of(store, GONE)
        tokens, image = store.records.read_tokens(entry), store.records.read_inputs(entry)
        private = [store.records.read_keys(entry).numpy().tobytes(), image.numpy().tobytes(), *tokens.pack()]
    # The worst that a node could have kept: all of the record, under the names that messages use.
    context.state[ARRAYS] = ArrayRecord({"token": tokens.offsets, "image": image})
    kept = context_from_proto(context_to_proto(context))

    federation.delete(GONE)
    reply = federation.ask(MessageType.TRAIN, context=kept, server_round=2)
    clean = other.ask(MessageType.TRAIN, server_round=2)

    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    assert same(weights_of(reply), weights_of(clean))
    sent = message_to_proto(reply).SerializeToString()
    assert all(content not in sent for content in private)
    with federation.folder.open() as store:
        assert not store.records.holds(SECRET.reference(f"digit-{GONE}"))


# Checkpoints.


@pytest.mark.parametrize("guarantee", ["empirical", "certified"])
def test_older_checkpoint_does_not_bring_the_record_back(make_federation: Make, tmp_path: Path, guarantee: str) -> None:
    federation = make_federation(guarantee=guarantee)
    old = Checkpoint(weights_of(federation.ask(MessageType.TRAIN)), federation.model.shape, "descriptor", {})
    write_checkpoint(tmp_path / "old.safetensors", old)
    federation.ask(MessageType.EVALUATE)
    federation.delete(GONE)

    model = read_checkpoint(tmp_path / "old.safetensors").model()
    trained = federation.ask(MessageType.TRAIN, model=model)
    federation.ask(MessageType.EVALUATE, model=model)

    assert trained.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    with federation.folder.open() as store:
        assert store.records.count(Split.TRAIN) == TRAIN - 1
        checked = store.orders.check_erasure(1, [federation.folder.path, tmp_path])
    assert checked.erased, checked
    assert checked.remembered > 0


def test_run_from_an_older_checkpoint_goes_on_with_the_account(make_federation: Make) -> None:
    federation = make_federation(guarantee="certified", num_rounds=2, local_steps=2)
    first = federation.model
    federation.ask(MessageType.TRAIN, model=first)
    federation.delete(GONE)

    again = federation.ask(MessageType.TRAIN, model=first)
    refused = federation.ask(MessageType.TRAIN, model=first)

    assert again.has_content()
    with federation.folder.open() as store:
        assert store.privacy.spent() == [noisy_steps_of_round(Recipe.of(federation.settings))] * 2
    assert reason_of(refused).startswith("the privacy budget is spent")


def test_weights_that_a_site_keeps_are_the_shared_ones_alone(make_federation: Make) -> None:
    federation = make_federation()
    federation.ask(MessageType.TRAIN)
    federation.ask(MessageType.EVALUATE, ends_run=1)

    kept = read_checkpoint(federation.folder.shared_weights)

    assert kept.weights.keys() == Munkey(federation.model.shape).state_dict().keys()
    with federation.folder.open() as store:
        tokens = store.records.read_tokens(store.records.read_entries(Split.TRAIN)[0])
    contents = [path.read_bytes() for path in federation.folder.path.glob("shared.*")]
    assert len(contents) == 2
    for rows in (tokens.offsets, tokens.first_moments, tokens.second_moments):
        assert all(row.numpy().tobytes() not in content for row in rows if row.any() for content in contents)


def test_record_with_new_consent_begins_without_its_old_token_and_optimiser_state(make_federation: Make) -> None:
    federation = make_federation()
    federation.ask(MessageType.TRAIN)
    with federation.folder.open() as store:
        before = store.records.read_tokens(entry_of(store, GONE))
    assert before.steps.item() > 0
    assert before.second_moments.any()
    federation.delete(GONE)

    with federation.folder.open() as store:
        enrol(store, encode(ENCODER, digits()), SECRET, new_consent=frozenset([f"digit-{GONE}"]))
        after = store.records.read_tokens(entry_of(store, GONE))

    for rows in (after.offsets, after.first_moments, after.second_moments, after.steps):
        assert not torch.any(rows)
