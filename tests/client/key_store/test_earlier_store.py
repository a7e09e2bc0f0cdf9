"""A store that is made in the place of an earlier one knows what that knew, by the journal that it has left."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore, StoreDescription, Tokens
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept
from fedmunkey.client.key_store.on_disk.record_ciphers import cipher_file_of, master_key_of
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.key_store.on_disk.schema import connect
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState, Subject
from fedmunkey.common.errors import KeyStoreError, PrivacyBudgetSpent
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.privacy.noisy_steps import NoisySteps

Fill = Callable[..., Dataset]
Order = Callable[..., DeletionOrder]

STEPS = NoisySteps(1, 1.0, 4.0)
GIVEN, OTHERS = range(4), range(4, 9)


def train(store: KeyStore, used: Influence, rows: slice = slice(None), training: int | None = None) -> None:
    entries, _ = store.records.read_entries(Split.TRAIN)
    tokens = Tokens.zeros(len(entries), store.description.exemplar_size)
    chosen = entries[rows]
    store.records.write_tokens(store.generation, entries, tokens, used=used, used_entries=chosen, training=training)


@dataclass
class Earlier:
    """What is known of a store that is no more: where it was, and how it answered two orders."""

    path: Path
    description: StoreDescription
    orders: list[DeletionOrder]
    answers: list[Acknowledgement]

    def lose(self, *, master: bool = False) -> None:
        """Take the store and its key file away, as an operator does who follows an error's advice."""
        for file in (self.path, cipher_file_of(self.path), *([master_key_of(self.path)] if master else [])):
            file.unlink()

    def make_again(self, **changes: object) -> KeyStore:
        return KeyStore.create(self.path, replace(self.description, **changes))  # type: ignore[arg-type]


@pytest.fixture
def earlier(
    make_store: Callable[..., KeyStore], fill: Fill, order: Order, subject_target: Callable[[int], Subject]
) -> Earlier:
    """A site under `exact`: records given for good have trained weights; a subject and a record were deleted."""
    store = make_store(guarantee=Guarantee.EXACT)
    fill(store, GIVEN, consent=Consent.PERMANENT)
    fill(store, OTHERS)
    train(store, Influence.UNBOUNDED, slice(0, 4))
    orders = [order(1, target=subject_target(5)), order(2, 3)]
    answers = store.orders.apply_all(orders)
    store.close()
    found = Earlier(store.path, store.description, orders, answers)
    found.lose()
    return found


def test_new_store_gives_the_same_answers_and_lets_nothing_back_in(earlier: Earlier, fill: Fill) -> None:
    with earlier.make_again() as store:
        assert store.is_restored
        with pytest.raises(KeyStoreError, match="run munkey-client catch-up first"):
            fill(store, OTHERS)
        assert store.orders.apply_all(earlier.orders) == earlier.answers
        store.finish_restoring()

        fill(store, GIVEN, consent=Consent.PERMANENT)
        fill(store, OTHERS)

        assert store.records.count(Split.TRAIN) == len(GIVEN) + len(OTHERS) - 2
        assert store.records.count_influences() == {Influence.UNBOUNDED: 3, Influence.NONE: 4}


def test_images_of_the_deleted_are_known_before_any_order_is_heard(
    earlier: Earlier, make_records: Callable[..., Dataset]
) -> None:
    with earlier.make_again() as store:
        assert [store.records.has_deleted_image(image) for image in make_records([3, 4, 5]).images] == [
            True,
            False,
            True,
        ]


def test_answers_say_what_weights_hold_whether_a_record_came_again_or_not(
    earlier: Earlier, fill: Fill, order: Order
) -> None:
    with earlier.make_again() as store:
        store.orders.apply_all(earlier.orders)
        store.finish_restoring()
        # Given for good before, and not any more: the weights hold it all the same.
        fill(store, [0], consent=Consent.REVOCABLE)
        fill(store, [4])

        again, never_trained, not_here, unknown = store.orders.apply_all(
            [order(3, 0), order(4, 4), order(5, 1), order(6, 99)]
        )
        everything = store.orders.apply(order(7))

    assert (again.state, again.guarantee) == (SiteState.ERASED, Guarantee.EMPIRICAL)
    assert (never_trained.state, never_trained.guarantee) == (SiteState.ERASED, Guarantee.EXACT)
    assert (not_here.state, not_here.guarantee) == (SiteState.NOTHING_HELD, Guarantee.EMPIRICAL)
    assert (unknown.state, unknown.guarantee) == (SiteState.NOTHING_HELD, Guarantee.EXACT)
    assert everything.guarantee is Guarantee.EMPIRICAL


def test_subject_that_did_not_come_again_is_answered_truly(
    earlier: Earlier, order: Order, subject_target: Callable[[int], Subject]
) -> None:
    with earlier.make_again() as store:
        store.orders.apply_all(earlier.orders)

        answer = store.orders.apply(order(3, target=subject_target(1)))

    assert (answer.state, answer.guarantee) == (SiteState.NOTHING_HELD, Guarantee.EMPIRICAL)


def test_spent_privacy_budget_stays_spent(make_store: Callable[..., KeyStore], fill: Fill) -> None:
    store = make_store(guarantee=Guarantee.CERTIFIED)
    fill(store, OTHERS)
    for round_number in (1, 2):
        train(store, Influence.BOUNDED, training=store.privacy.begin(STEPS, round_number))
    store.privacy.take_back(2)
    train(store, Influence.BOUNDED, training=store.privacy.begin(STEPS, 3))
    spent = store.privacy.loss()
    store.close()
    found = Earlier(store.path, store.description, [], [])
    found.lose()

    with found.make_again() as again:
        # No order was ever answered, so there is none to hear.
        assert not again.is_restored
        assert again.privacy.spent() == [STEPS, STEPS]
        assert again.privacy.loss() == spent
        fill(again, OTHERS)
        assert again.records.count_influences() == {Influence.BOUNDED: len(OTHERS)}
        assert again.privacy.begin(STEPS, 4) > 3
    found.lose()
    with found.make_again(epsilon=spent.epsilon) as strict, pytest.raises(PrivacyBudgetSpent):
        strict.privacy.begin(STEPS, 4)


def test_without_the_master_key_the_kind_of_record_decides(
    earlier: Earlier, fill: Fill, order: Order, caplog: pytest.LogCaptureFixture
) -> None:
    master_key_of(earlier.path).unlink()

    with caplog.at_level(logging.WARNING), earlier.make_again() as store:
        assert store.is_restored
        assert store.orders.apply_all(earlier.orders) == earlier.answers
        store.finish_restoring()
        fill(store, GIVEN, consent=Consent.PERMANENT)
        fill(store, OTHERS)

        assert store.records.count_influences() == {Influence.UNBOUNDED: 3, Influence.NONE: 4}
        assert store.orders.apply(order(3, 99)).guarantee is Guarantee.EMPIRICAL
    (said,) = caplog.messages
    assert "was written with another master key" in said


def test_third_store_knows_what_the_first_knew(earlier: Earlier, fill: Fill, order: Order) -> None:
    earlier.make_again().close()
    earlier.lose()

    with earlier.make_again() as store:
        assert store.orders.apply_all(earlier.orders) == earlier.answers
        store.finish_restoring()
        fill(store, GIVEN, consent=Consent.PERMANENT)
        assert store.orders.apply(order(3, 0)).guarantee is Guarantee.EMPIRICAL


@pytest.mark.parametrize("moment", ["creation.remember", "creation.RecordCiphers.create"])
def test_nothing_is_lost_where_the_making_is_interrupted(
    earlier: Earlier, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"fedmunkey.client.key_store.on_disk.{moment}", cut)
        with pytest.raises(KeyboardInterrupt):
            earlier.make_again()
    assert not earlier.path.exists()

    with earlier.make_again() as store:
        assert store.orders.apply_all(earlier.orders) == earlier.answers


def test_journal_that_is_lost_beside_a_second_store_claims_the_worst(
    earlier: Earlier, fill: Fill, order: Order
) -> None:
    with earlier.make_again() as store:
        store.orders.apply_all(earlier.orders)
        store.finish_restoring()
        fill(store, [4])
    for file in Journal(earlier.path).files:
        file.unlink(missing_ok=True)

    with KeyStore.open(earlier.path):
        pass
    earlier.lose()

    with earlier.make_again() as store:
        store.finish_restoring()
        fill(store, [4])
        assert store.orders.apply_all([replace(order(1, 4)), order(2, 1)])[1].guarantee is Guarantee.EMPIRICAL


def test_journal_without_hash_key_is_told_what_the_store_remembers(
    earlier: Earlier, fill: Fill, order: Order, make_records: Callable[..., Dataset]
) -> None:
    """A journal of the version before, whose store was opened once."""
    with earlier.make_again() as store:
        store.orders.apply_all(earlier.orders)
        store.finish_restoring()
        fill(store, GIVEN, consent=Consent.PERMANENT)
    with closing(connect(Journal(earlier.path).path)) as connection:
        connection.execute("DROP TABLE hash_keys")
        connection.execute("DROP TABLE remembered")

    with KeyStore.open(earlier.path):
        pass
    earlier.lose()

    with earlier.make_again() as store:
        assert store.records.has_deleted_image(make_records([3]).images[0])
        store.orders.apply_all(earlier.orders)
        assert store.orders.apply(order(3, 0)).guarantee is Guarantee.EMPIRICAL


def test_nobody_is_found_in_a_journal_without_the_master_key(earlier: Earlier) -> None:
    journal = Journal(earlier.path)
    with earlier.make_again() as store:
        key = store.reference_hashes.key

    assert journal.read(Kept.REMEMBERED)
    assert key not in journal.path.read_bytes()
    assert key.hex().encode() not in journal.path.read_bytes()


def test_records_lost_by_restoring_are_answered_truly(
    make_store: Callable[..., KeyStore], fill: Fill, order: Order, tmp_path: Path
) -> None:
    store = make_store(guarantee=Guarantee.EXACT)
    store.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))
    fill(store, GIVEN, consent=Consent.PERMANENT)
    train(store, Influence.UNBOUNDED)
    store.orders.apply(order(1, 3))
    restore(tmp_path / "monday.backup", store.path)

    assert store.orders.apply(order(1, 3)).records == 1
    store.finish_restoring()

    assert store.orders.apply(order(2, 1)).guarantee is Guarantee.EMPIRICAL
    fill(store, [0], consent=Consent.PERMANENT)
    assert store.records.count_influences() == {Influence.UNBOUNDED: 1}


def test_backup_of_an_earlier_store_is_not_put_beside_the_keys_of_a_later_one(
    make_store: Callable[..., KeyStore], fill: Fill, tmp_path: Path
) -> None:
    store = make_store()
    fill(store, GIVEN)
    store.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))
    store.close()
    found = Earlier(store.path, store.description, [], [])
    found.lose()
    with found.make_again() as later:
        fill(later, GIVEN)

    with pytest.raises(KeyStoreError, match=r"does not have the key of .*monday\.backup: .*of another key store"):
        restore(tmp_path / "monday.backup", store.path)

    with KeyStore.open(store.path) as later:
        assert len(later.records.read_ids(later.records.read_entries(Split.TRAIN)[0])) == len(GIVEN)


def test_key_file_that_is_older_than_the_store_is_named(store: KeyStore, fill: Fill) -> None:
    fill(store, [0])
    old = cipher_file_of(store.path).read_bytes()
    fill(store, [1, 2])
    store.close()
    present = cipher_file_of(store.path).read_bytes()
    cipher_file_of(store.path).write_bytes(old)

    with pytest.raises(KeyStoreError, match=r"keystore\.keys is older than the key store, .* put the present one back"):
        KeyStore.open(store.path)

    cipher_file_of(store.path).write_bytes(present)
    with KeyStore.open(store.path) as again:
        assert np.array_equal(again.ciphers.held(), [1, 2, 3])


def test_worst_is_not_forgotten_by_restoring_without_a_journal(
    make_store: Callable[..., KeyStore], fill: Fill, order: Order, tmp_path: Path
) -> None:
    store = make_store(guarantee=Guarantee.CERTIFIED)
    fill(store, [0])
    store.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))
    store.journal.close()
    store.close()
    store.path.write_bytes(b"the disk has failed " * 1000)
    store.journal.path.unlink()
    restore(tmp_path / "monday.backup", store.path, without_journal=True)

    with KeyStore.open(store.path) as restored:
        restored.finish_restoring()
        fill(restored, [1])
        # It may have been here since the backup, and in weights.
        assert restored.orders.apply(order(1, 1)).guarantee is Guarantee.EMPIRICAL
        assert restored.privacy.loss().epsilon == math.inf
