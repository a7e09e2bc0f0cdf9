"""What the site's Flower app trains, tells and keeps under each guarantee."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import MessageType

from fedmunkey.client.learning.bank import Bank, read_bank
from fedmunkey.client.learning.evaluation import Evaluation, evaluate
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.learning.noisy_step import noisy_steps_of_round
from fedmunkey.client.learning.state_digest import state_digest
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.rounds import descended
from fedmunkey.common.failpoints import Act, Action, Armed, Failpoint, FailpointPlan, arm
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Influence
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.programs.round_messages import METRICS, SITE
from tests.client.conftest import Opinionated
from tests.client.one_site import (
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

DESCENDED = ["certified", "empirical"]

# Shared weights and tokens that follow from them.


@pytest.mark.parametrize("guarantee", DESCENDED)
@pytest.mark.parametrize("only", [0, 1])
def test_site_answers_from_weights_when_a_run_ends_with_them_and_not_before(
    make_federation: Make, opinionated: Opinionated, guarantee: str, only: int
) -> None:
    federation = make_federation(guarantee=guarantee)
    model = opinionated(Munkey(federation.model.shape))
    federation.ask(MessageType.TRAIN)
    federation.ask(MessageType.EVALUATE, take_over=only)
    assert not federation.folder.shared_weights.exists()

    federation.ask(MessageType.EVALUATE, model=model, ends_run=1, take_over=only)
    federation.ask(MessageType.EVALUATE, take_over=only)

    kept = read_checkpoint(federation.folder.shared_weights, expected=model.shape, encoder="descriptor")
    assert same(dict(kept.weights), dict(model.state_dict()))
    assert kept.about == {"guarantee": guarantee, "again": False}


@pytest.mark.parametrize("changes", [{"guarantee": "certified"}, {"exemplar_tokens": "own"}])
def test_tokens_follow_from_the_weights_that_came_last_and_are_those_that_are_evaluated(
    make_federation: Make, opinionated: Opinionated, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    federation = make_federation(records=donated(), **changes)
    model, read = opinionated(Munkey(federation.model.shape)), []

    def note_and_evaluate(model: Munkey, bank: Bank, *rest: Any) -> Evaluation:
        read.append((len(bank), bank.tokens.offsets.clone()))
        return evaluate(model, bank, *rest)

    monkeypatch.setattr(descended, "evaluate", note_and_evaluate)
    for round_number, weights in enumerate((federation.model, model), start=1):
        before = tokens_of(federation)
        federation.ask(MessageType.TRAIN, model=weights, server_round=round_number)
        assert tokens_of(federation) == before

        federation.ask(MessageType.EVALUATE, model=weights, server_round=round_number)

        with federation.folder.open() as store:
            inputs = read_bank(store, 3).inputs
        expected = own_tokens(weights, inputs).offsets
        assert tokens_of(federation) == expected.tolist() != before
        assert all(torch.equal(tokens, expected) for count, tokens in read if count == TRAIN)
        read.clear()


@pytest.mark.parametrize("guarantee", DESCENDED)
def test_state_is_the_same_without_an_accuracy(make_federation: Make, opinionated: Opinionated, guarantee: str) -> None:
    asked, other = (make_federation(name, donated(), guarantee=guarantee) for name in ("asked", "other"))
    model = opinionated(Munkey(asked.model.shape))
    told = []

    for weights in (asked.model, model):
        asked.ask(MessageType.EVALUATE, model=weights, ends_run=1)
        told.append(other.ask(MessageType.EVALUATE, model=weights, take_over=1, ends_run=1))

    assert tokens_of(other) == tokens_of(asked)
    assert other.folder.shared_weights.read_bytes() == asked.folder.shared_weights.read_bytes()
    digests = []
    for site in (asked, other):
        with site.folder.open() as store:
            list_arrivals(store)
            digests.append(state_digest(store, 3))
    assert digests[0] == digests[1]
    for reply in told:
        assert reply.content.keys() == {METRICS, SITE}
        assert len(reply.content.metric_records[METRICS]) == 0


def test_jointly_trained_tokens_are_left_alone_by_an_evaluation(make_federation: Make) -> None:
    federation = make_federation()
    federation.ask(MessageType.TRAIN)
    before = tokens_of(federation)

    federation.ask(MessageType.EVALUATE)

    assert tokens_of(federation) == before


# Which accuracy may choose the best round.


def selection_accuracy(federation: Federation) -> float:
    reply = federation.ask(MessageType.EVALUATE)
    assert reply.has_content(), reply.error.reason
    return float(str(reply.content.metric_records[METRICS]["selection-accuracy"]))


def test_empirical_selection_accuracy_is_that_of_validation_or_else_of_the_test(make_federation: Make) -> None:
    federation = make_federation()
    without = make_federation("without", digits().select(digits().splits != Split.VAL.value))

    for site, split in ((federation, "val"), (without, "test")):
        metrics = site.ask(MessageType.EVALUATE).content.metric_records[METRICS]
        assert metrics["selection-accuracy"] == metrics[f"{split}-accuracy"]


def test_certified_has_no_accuracy_to_choose_by(make_federation: Make) -> None:
    assert math.isnan(selection_accuracy(make_federation(guarantee="certified")))


def donated() -> Dataset:
    """Return the digits, every other of which is permanent."""
    records = digits()
    even = np.arange(len(records)) % 2 == 0
    return replace(records, consents=np.where(even, Consent.PERMANENT.value, Consent.REVOCABLE.value))


# Certified.


def certified(make_federation: Make, folder: str = NAME, **changes: Any) -> Federation:
    return make_federation(folder, **{"guarantee": "certified", "num_rounds": 2, "local_steps": 2, **changes})


def spent_by(federation: Federation) -> list[NoisySteps]:
    with federation.folder.open() as store:
        return store.privacy.spent()


def test_certified_round_is_entered_in_the_key_store_and_told_without_a_loss(make_federation: Make) -> None:
    federation = certified(make_federation, epsilon=2.0, delta=1e-4)

    for number in (1, 2):
        trained = federation.ask(MessageType.TRAIN, server_round=number)
        evaluated = federation.ask(MessageType.EVALUATE, server_round=number)

        assert spent_by(federation) == [noisy_steps_of_round(Recipe.of(federation.settings))] * number
        with federation.folder.open() as store:
            loss = store.privacy.loss()
        metrics = trained.content.metric_records[METRICS]
        assert set(metrics) == {"num-examples", "train-loss", "epsilon", "delta"}
        assert math.isnan(float(str(metrics["train-loss"])))
        for reply in (trained, evaluated):
            told = reply.content.metric_records[METRICS]
            assert (told["epsilon"], told["delta"]) == (loss.epsilon, 1e-4)

    assert 1.99 < loss.epsilon <= 2.0


def test_second_run_past_the_budget_is_refused_and_nothing_is_sent_or_spent(make_federation: Make) -> None:
    federation = certified(make_federation, epsilon=2.0)
    for number in (1, 2):
        federation.ask(MessageType.TRAIN, server_round=number)

    refused = federation.ask(MessageType.TRAIN, server_round=1)

    assert reason_of(refused).startswith("the privacy budget is spent: epsilon is 2 of the 2 that this site has")
    assert len(spent_by(federation)) == 2
    # What is there can still be used.
    assert federation.ask(MessageType.EVALUATE).has_content()


def test_certified_site_without_entries_spends_nothing(make_federation: Make) -> None:
    federation = certified(make_federation, records=digits().select(digits().splits != Split.TRAIN.value))

    reply = federation.ask(MessageType.TRAIN)

    metrics = reply.content.metric_records[METRICS]
    assert (metrics["num-examples"], metrics["epsilon"]) == (0, 0)
    assert spent_by(federation) == []


def test_training_interrupted_by_deletion_is_spent_once(make_federation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    federation = certified(make_federation)
    steps = delete_during_training(federation, monkeypatch, [3], lambda done, _: done == 1)

    reply = federation.ask(MessageType.TRAIN)

    assert steps == [1, 2, 1, 2]
    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    assert spent_by(federation) == [noisy_steps_of_round(Recipe.of(federation.settings))]


def test_training_that_a_deletion_overtakes_before_the_reply_is_spent_once(make_federation: Make) -> None:
    federation = certified(make_federation)

    # The training is released by then, and its weights have not left.
    overtaken = FailpointPlan({Failpoint.WRITE_BACK_AFTER_COMMIT: Action(Act.KILL, at=1)})
    arm(Armed(overtaken, kill=lambda: federation.delete(3)))
    try:
        reply = federation.ask(MessageType.TRAIN)
    finally:
        arm(None)

    assert reply.content.metric_records[METRICS]["num-examples"] == TRAIN - 1
    assert spent_by(federation) == [noisy_steps_of_round(Recipe.of(federation.settings))]
    # The budget has room for the other of two rounds.
    assert federation.ask(MessageType.TRAIN, server_round=2).has_content()
    assert len(spent_by(federation)) == 2


def test_noise_is_that_of_the_sites_own_key_and_of_the_round(make_federation: Make) -> None:
    keys = {"first": bytes(32), "same": bytes(32), "other": bytes(range(32))}
    sites = {name: certified(make_federation, name, noise_key=key) for name, key in keys.items()}

    once = {name: weights_of(site.ask(MessageType.TRAIN)) for name, site in sites.items()}
    again = weights_of(sites["first"].ask(MessageType.TRAIN))

    assert same(once["first"], once["same"])
    assert not same(once["first"], once["other"])
    # The same round from the same weights, asked for twice: were the noise the same, the difference would have none.
    assert not same(once["first"], again)


def test_site_that_has_promised_no_bound_names_the_same_metrics_without_a_number(make_federation: Make) -> None:
    promised, other = certified(make_federation), certified(make_federation, "other", promised="empirical")

    for what in (MessageType.TRAIN, MessageType.EVALUATE):
        told, silent = (site.ask(what).content.metric_records[METRICS] for site in (promised, other))
        # Flower refuses to average replies that do not have the same names.
        assert set(told) == set(silent)
        assert math.isnan(float(str(silent["epsilon"])))


# What the weights that were sent may hold of each record.


@pytest.mark.parametrize(
    ("guarantee", "expected"),
    [
        ("certified", {Influence.BOUNDED: TRAIN, Influence.NONE: VAL + TEST}),
        ("empirical", {Influence.UNBOUNDED: TRAIN, Influence.NONE: VAL + TEST}),
    ],
)
def test_training_marks_its_records(make_federation: Make, guarantee: str, expected: dict[Influence, int]) -> None:
    federation = make_federation(records=donated(), guarantee=guarantee)

    federation.ask(MessageType.EVALUATE)
    with federation.folder.open() as store:
        assert store.records.count_influences() == {Influence.NONE: TRAIN + VAL + TEST}

    federation.ask(MessageType.TRAIN)
    with federation.folder.open() as store:
        assert store.records.count_influences() == expected
