"""The store remembers what weights that left the site may hold, and a deletion claims no more than that allows."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore, Tokens, deletion
from fedmunkey.client.key_store.on_disk.influence import count_largest_subject
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.privacy.accounting import epsilon_of
from fedmunkey.common.privacy.guarantees import Guarantee, Influence, PrivacyLoss
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from tests.client.conftest import TRAINING, Encode, Fill, Make, MakeRecords, Order, Reopen, SubjectTarget, train

NONE, BOUNDED, UNBOUNDED = Influence
EXACT, CERTIFIED, EMPIRICAL = Guarantee
DELTA = 1e-5


def use(store: KeyStore, influence: Influence, *entries: int, training: int | None = None) -> None:
    """Write tokens of all entries, after training the shared weights on some of them, or on all."""
    everything, _ = store.records.read_entries(Split.TRAIN)
    chosen = np.array(entries, dtype=np.int64) if entries else None
    tokens = Tokens.zeros(len(everything), store.description.exemplar_size)
    options: dict[str, Any] = {"used": influence, "used_entries": chosen, "training": training}
    store.records.write_tokens(store.generation, everything, tokens, **options)


def influences(store: KeyStore, table: str = "records") -> list[str]:
    connection = sqlite3.connect(store.path)
    order = "entry" if table == "records" else "influence"
    found = [row[0] for row in connection.execute(f"SELECT influence FROM {table} ORDER BY {order}")]  # noqa: S608
    connection.close()
    return found


@pytest.fixture
def make_filled(make_store: Make, fill: Fill) -> Make:
    """Return a function that makes a store with six entries, of which 5 and 6 are one subject's."""

    def make(**changes: Any) -> KeyStore:
        store = make_store(**changes)
        fill(store, range(6), subjects=[1, 2, 3, 4, 5, 5])
        return store

    return make


@pytest.fixture
def enrol_again(make_records: MakeRecords, encode_records: Encode, secret: FederationSecret) -> Callable[..., None]:
    """Return a function that enrols a record with consent given anew."""

    def enrol(store: KeyStore, number: int, **properties: Any) -> None:
        records = make_records([number], **properties)
        consent = frozenset(records.record_ids.tolist())
        assert store.records.enrol(records, encode_records(records), secret, new_consent=consent).added == 1

    return enrol


# What is remembered.


def test_influence_reaches_what_was_used_and_no_other(make_filled: Make) -> None:
    store = make_filled()

    use(store, UNBOUNDED, 2, 4)

    assert influences(store) == ["none", "unbounded", "none", "unbounded", "none", "none"]
    assert store.records.count_influences() == {NONE: 4, UNBOUNDED: 2}


def test_influence_reaches_every_entry_unless_some_are_named(make_filled: Make, fill: Fill) -> None:
    store = make_filled()
    fill(store, [6], split=Split.TEST)

    use(store, BOUNDED)

    assert influences(store) == ["bounded"] * 6 + ["none"]


def test_no_entry_used_means_no_influence(make_filled: Make) -> None:
    store = make_filled()
    entries, _ = store.records.read_entries(Split.TRAIN)

    nothing = np.empty(0, dtype=np.int64)
    store.records.write_tokens(store.generation, entries, Tokens.zeros(6, 8), used=UNBOUNDED, used_entries=nothing)

    assert store.records.count_influences() == {NONE: 6}


def test_influence_never_falls(make_filled: Make) -> None:
    store = make_filled()
    use(store, UNBOUNDED, 1)
    use(store, BOUNDED, 1, 2)
    use(store, NONE)

    assert influences(store) == ["unbounded", "bounded", *["none"] * 4]


@pytest.mark.parametrize("influence", Influence)
def test_influence_survives_deletion_and_consent_given_anew(
    make_filled: Make, order: Order, enrol_again: Callable[..., None], reopen: Reopen, influence: Influence
) -> None:
    store = make_filled()
    use(store, influence, 3)
    store.orders.apply(order(1, 2))
    # That of the record, and that of its image.
    assert influences(store, "tombstones") == [influence.value] * 2
    # It was deleted before, which makes it no less influential.
    store.orders.apply(order(2, 2))

    again = reopen(store)
    enrol_again(again, 2)

    assert influences(again) == ["none"] * 5 + [influence.value]
    assert influences(again, "tombstones") == []


def test_what_was_deleted_together_with_its_subject_keeps_its_own_influence(
    make_filled: Make, order: Order, subject_target: SubjectTarget, enrol_again: Callable[..., None]
) -> None:
    store = make_filled()
    use(store, UNBOUNDED, 5)
    store.orders.apply(order(1, target=subject_target(5)))
    # The subject's own remembers the most that was held of any of its records; an image's is that of its record.
    assert influences(store, "tombstones") == ["none", "none", "unbounded", "unbounded", "unbounded"]

    for number in (4, 5):
        enrol_again(store, number, subjects=[5])

    assert influences(store) == ["none"] * 4 + ["unbounded", "none"]


def test_influence_survives_emptying_a_site(make_filled: Make, order: Order, enrol_again: Callable[..., None]) -> None:
    store = make_filled()
    use(store, BOUNDED, 1)
    store.orders.apply(order(1))

    enrol_again(store, 0)

    assert influences(store) == ["bounded"]


def test_permanent_consent_is_told_for_each_entry(store: KeyStore, fill: Fill) -> None:
    for numbers, consent in (([0], Consent.PERMANENT), ([1, 2], Consent.REVOCABLE), ([3], Consent.PERMANENT)):
        fill(store, numbers, consent=consent)
    entries, _ = store.records.read_entries(Split.TRAIN)

    assert store.records.read_permanent(entries).tolist() == [True, False, False, True]
    assert store.records.read_permanent(entries[[3, 1]]).tolist() == [True, False]
    assert store.records.read_permanent(entries[:0]).dtype == np.bool_
    with pytest.raises(BankChanged):
        store.records.read_permanent(entries + 1)


def test_largest_subject_is_counted_by_its_training_records(store: KeyStore, fill: Fill) -> None:
    before = count_largest_subject(store.database.connection)
    fill(store, range(5), subjects=[1, 2, 2, 3, 2])
    fill(store, range(5, 9), subjects=[1] * 4, split=Split.TEST)

    assert (before, count_largest_subject(store.database.connection)) == (0, 3)


# What an answer claims.


@pytest.mark.parametrize(
    ("promise", "influence", "claimed"),
    [
        (EXACT, NONE, EXACT),
        (EXACT, BOUNDED, CERTIFIED),
        (EXACT, UNBOUNDED, EMPIRICAL),
        (CERTIFIED, NONE, CERTIFIED),
        (CERTIFIED, BOUNDED, CERTIFIED),
        (CERTIFIED, UNBOUNDED, EMPIRICAL),
        (EMPIRICAL, NONE, EMPIRICAL),
        (EMPIRICAL, BOUNDED, EMPIRICAL),
        (EMPIRICAL, UNBOUNDED, EMPIRICAL),
    ],
)
@pytest.mark.parametrize("target", ["records", "subject", "everything"])
def test_answer_claims_the_promise_or_less_if_the_weights_may_hold_more(
    make_filled: Make,
    order: Order,
    subject_target: SubjectTarget,
    promise: Guarantee,
    influence: Influence,
    claimed: Guarantee,
    target: str,
) -> None:
    store = make_filled(guarantee=promise)
    use(store, influence, 5)
    orders = {"records": order(1, 3, 4), "subject": order(1, target=subject_target(5)), "everything": order(1)}

    answer = store.orders.apply(orders[target])

    assert answer.guarantee is claimed
    assert (answer.record_loss is not None, answer.subject_loss is not None) == (claimed is CERTIFIED,) * 2


def test_exact_site_answers_empirical_for_permanent_record_it_used(make_store: Make, fill: Fill, order: Order) -> None:
    store = make_store(guarantee=EXACT)
    fill(store, [0], consent=Consent.PERMANENT)
    fill(store, [1, 2])
    entries, _ = store.records.read_entries(Split.TRAIN)
    use(store, UNBOUNDED, *entries[store.records.read_permanent(entries)].tolist())

    revocable, permanent = store.orders.apply(order(1, 1)), store.orders.apply(order(2, 0))

    assert (revocable.guarantee, permanent.guarantee) == (EXACT, EMPIRICAL)


def test_weights_may_hold_more_from_before(make_filled: Make, order: Order, enrol_again: Callable[..., None]) -> None:
    store = make_filled(guarantee=EXACT)
    use(store, UNBOUNDED, 1)
    store.orders.apply(order(1, 0))
    # Held out this time, which takes nothing out of the weights.
    enrol_again(store, 0, split=Split.TEST)

    answer = store.orders.apply(order(2, 0))

    assert (answer.records, answer.entries, answer.guarantee) == (1, 0, EMPIRICAL)


def test_second_order_claims_no_more(make_filled: Make, order: Order, subject_target: SubjectTarget) -> None:
    store = make_filled(guarantee=EXACT)
    use(store, UNBOUNDED, 1, 5)

    orders = [order(1, 0), order(2, 0), order(3, target=subject_target(5)), order(4, target=subject_target(5))]
    answers = [store.orders.apply(one) for one in orders]

    assert [answer.records > 0 for answer in answers] == [True, False, True, False]
    assert {answer.guarantee for answer in answers} == {EMPIRICAL}


@pytest.mark.parametrize("promise", Guarantee)
def test_answer_of_site_that_holds_nothing_is_its_promise(make_filled: Make, order: Order, promise: Guarantee) -> None:
    store = make_filled(guarantee=promise)
    use(store, UNBOUNDED)

    answer = store.orders.apply(order(1, 100))

    assert (answer.state, answer.guarantee) == (SiteState.NOTHING_HELD, promise)


# What a certified answer bounds.


@pytest.fixture
def certified(make_filled: Make) -> KeyStore:
    """A certified store that has been trained for two rounds."""
    store = make_filled(guarantee=CERTIFIED, epsilon=100.0, delta=DELTA)
    for number in (1, 2):
        train(store, number)
    return store


def loss(rounds: int, records: int) -> PrivacyLoss:
    return PrivacyLoss(epsilon_of([TRAINING] * rounds, DELTA, records=records), DELTA, records)


def bounds(answer: Acknowledgement) -> tuple[PrivacyLoss | None, PrivacyLoss | None]:
    return answer.record_loss, answer.subject_loss


@pytest.mark.parametrize(
    ("numbers", "subject", "records"),
    [
        ([0], None, 1),
        ([0, 1], None, 1),
        # The subject's other record stays, and is in the weights all the same.
        ([4], None, 2),
        ([0, 4], None, 2),
        ([], 5, 2),
        ([], 1, 1),
        ([], None, 2),
        ([100], None, 1),
        ([], 100, 1),
    ],
)
def test_certified_answer_bounds_a_record_and_the_largest_subject(
    certified: KeyStore,
    order: Order,
    subject_target: SubjectTarget,
    numbers: list[int],
    subject: int | None,
    records: int,
) -> None:
    target = subject_target(subject) if subject else None

    answer = certified.orders.apply(order(1, *numbers, target=target))

    assert bounds(answer) == (loss(2, 1), loss(2, records))


def test_held_out_record_is_bounded_by_its_subjects_training(certified: KeyStore, fill: Fill, order: Order) -> None:
    fill(certified, [6, 7], split=Split.TEST, subjects=[5, 9])

    assert bounds(certified.orders.apply(order(1, 6)))[1] == loss(2, 2)
    assert bounds(certified.orders.apply(order(2, 7)))[1] == loss(2, 1)


def test_certified_answer_before_any_training_bounds_everything(make_filled: Make, order: Order) -> None:
    store = make_filled(guarantee=CERTIFIED)

    assert bounds(store.orders.apply(order(1, 4))) == (PrivacyLoss(0.0, DELTA), PrivacyLoss(0.0, DELTA, 2))


def test_bounds_of_an_answer_stay_while_training_goes_on(certified: KeyStore, order: Order, reopen: Reopen) -> None:
    answer = certified.orders.apply(order(1, 4))

    train(certified)

    assert certified.orders.apply(order(1, 4)) == answer
    assert reopen(certified).orders.read_answers() == [answer]
    assert reopen(certified).orders.read_unacknowledged() == [answer]
    assert bounds(certified.orders.apply(order(2, 0)))[0] == loss(3, 1)


def test_unbounded_loss_is_told_as_it_is(make_filled: Make, order: Order, reopen: Reopen) -> None:
    store = make_filled(guarantee=CERTIFIED, epsilon=math.inf, delta=DELTA)
    use(store, BOUNDED, training=store.privacy.begin(NoisySteps(1, 1.0, 0.0), 1))

    answer = store.orders.apply(order(1, 4))

    assert bounds(answer) == (PrivacyLoss(math.inf, DELTA), PrivacyLoss(math.inf, DELTA, 2))
    assert reopen(store).orders.read_answers() == [answer]


@pytest.mark.parametrize("during", ["_checkpoint", "_final"])
def test_bounds_of_an_interrupted_deletion_are_those_of_the_moment_when_it_was_committed(
    certified: KeyStore, order: Order, reopen: Reopen, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    class PowerCutError(Exception): ...

    def fail(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(deletion, during, fail)
        with pytest.raises(PowerCutError):
            certified.orders.apply(order(1, 4))
    train(certified)

    after = reopen(certified)
    (answer,) = after.orders.read_unacknowledged()

    assert bounds(answer) == (loss(2, 1), loss(2, 2))
    assert after.orders.apply(order(1, 4)) == answer
    assert certified.orders.read_answers() == [answer]


def test_erasure_does_not_wait_for_bounds(certified: KeyStore, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    final = deletion._final
    later = time.perf_counter() + 1e9

    def slowly(*arguments: Any) -> Any:
        assert sum(certified.records.count(split) for split in Split) == 5
        assert not certified.database.connection.in_transaction
        monkeypatch.setattr(time, "perf_counter", lambda: later)
        return final(*arguments)

    monkeypatch.setattr(deletion, "_final", slowly)

    assert certified.orders.apply(order(1, 4)).seconds < 1e9
