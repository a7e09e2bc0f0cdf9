"""What a deletion leaves of copies that were taken before, of files that hold its bytes, and of the same image."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import Enrolled, KeyStore, Tokens
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.key_store.residue import Residue
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, SiteState
from fedmunkey.common.errors import BankChanged, KeyStoreError
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.privacy.guarantees import Guarantee, Influence
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from tests.client.conftest import record_id

Fill = Callable[..., Dataset]
Make = Callable[..., KeyStore]
Order = Callable[..., DeletionOrder]
Reopen = Callable[[KeyStore], KeyStore]

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture
def filled(store: KeyStore, fill: Fill) -> KeyStore:
    fill(store, range(6), subjects=[1, 2, 3, 4, 5, 5])
    entries, _ = store.records.read_entries(Split.TRAIN)
    rows = torch.randn(3, 6, store.description.exemplar_size, generator=torch.Generator().manual_seed(0))
    store.records.write_tokens(
        store.generation, entries, Tokens(rows[0], rows[1], rows[2], torch.ones(6, dtype=torch.int64))
    )
    return store


@pytest.fixture
def backup(filled: KeyStore, tmp_path: Path) -> Path:
    path = tmp_path / "monday.backup"
    filled.back_up(path, NOW)
    return path


def plant(store: KeyStore, what: Residue, entry: int) -> bytes:
    """Return bytes of an entry, as they must be nowhere once it is deleted."""
    numbers = np.array([entry])
    if what is Residue.WRAPPED_KEY:
        return store.ciphers.read_slots(numbers)[0]
    if what is Residue.RECORD_KEY:
        return store.ciphers.read(numbers)[0]
    if what is Residue.KEY:
        return bytes(store.records.read_keys(numbers).numpy().tobytes())
    if what is Residue.INPUT:
        return bytes(store.records.read_inputs(numbers).numpy().tobytes())
    if what is Residue.TOKEN:
        return next(store.records.read_tokens(numbers).pack())
    with closing(sqlite3.connect(store.path)) as connection:
        table = {
            Residue.SEALED_KEY: "keys",
            Residue.SEALED_INPUT: "inputs",
            Residue.SEALED_TOKEN: "tokens",
            Residue.SEALED_IDS: "ids",
        }[what]
        found: bytes = connection.execute(f"SELECT content FROM {table} WHERE entry = ?", (entry,)).fetchone()[0]  # noqa: S608
        return found


# Keys.


def test_deletion_destroys_the_keys_of_its_records_and_no_others(filled: KeyStore, order: Order) -> None:
    filled.orders.apply(order(1, 1, 3))

    assert filled.ciphers.held().tolist() == [1, 3, 5, 6]
    with pytest.raises(BankChanged):
        filled.ciphers.read(np.array([2]))
    assert len(filled.records.read_keys(np.array([1, 3, 5, 6]))) == 4


def test_other_records_of_a_subject_stay_readable(filled: KeyStore, order: Order) -> None:
    before = filled.records.read_inputs(np.array([6]))

    filled.orders.apply(order(1, 4))

    assert torch.equal(filled.records.read_inputs(np.array([6])), before)


def test_keys_are_destroyed_after_a_crash_between_commit_and_destruction(
    filled: KeyStore, order: Order, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception): ...

    def fail(_keys: object, _entries: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr("fedmunkey.client.key_store.on_disk.record_ciphers.RecordCiphers.destroy", fail)
        with pytest.raises(PowerCutError):
            filled.orders.apply(order(1, 1))
    assert 2 in filled.ciphers.held()

    (answer,) = reopen(filled).orders.read_unacknowledged()

    assert answer.records == 1
    assert 2 not in filled.ciphers.held()


def test_master_key_that_others_can_read_is_refused(store: KeyStore) -> None:
    store.master_key.chmod(0o640)

    with pytest.raises(KeyStoreError, match=r"keystore\.master has mode 0640, so others can read it; run chmod 600 "):
        KeyStore.open(store.path)


@pytest.mark.parametrize("name", ["keystore.master", "keystore.keys"])
def test_missing_key_is_one_line(store: KeyStore, name: str) -> None:
    store.close()
    (store.path.parent / name).unlink()

    with pytest.raises(KeyStoreError, match=rf"{name} is missing"):
        KeyStore.open(store.path)


def test_master_key_of_another_store_is_refused(make_store: Make) -> None:
    store, other = make_store(), make_store()
    store.master_key.write_bytes(other.master_key.read_bytes())

    with pytest.raises(KeyStoreError, match="belongs to another key store or another master key"):
        KeyStore.open(store.path)


def test_refused_key_file_is_closed_once(make_store: Make) -> None:
    store, other = make_store(), make_store()
    store.master_key.write_bytes(other.master_key.read_bytes())
    with pytest.raises(KeyStoreError) as refused:
        KeyStore.open(store.path)

    # These take the numbers that are free, and must still be open once the refused store is gone.
    files = [store.master_key.open("rb") for _ in range(8)]
    del refused
    gc.collect()

    for file in files:
        with file:
            assert file.read()


def test_master_key_may_be_kept_elsewhere(store: KeyStore, tmp_path: Path, reopen: Reopen) -> None:
    elsewhere = tmp_path / "token" / "master"
    elsewhere.parent.mkdir()
    (tmp_path / "site").mkdir()

    with KeyStore.create(tmp_path / "site" / "keystore.sqlite", store.description, master_key=elsewhere) as made:
        assert reopen(made).master_key == elsewhere
    assert not (tmp_path / "site" / "keystore.master").exists()


def test_content_that_was_moved_to_another_entry_is_refused(filled: KeyStore) -> None:
    with closing(sqlite3.connect(filled.path)) as connection, connection:
        connection.execute("UPDATE inputs SET content = (SELECT content FROM inputs WHERE entry = 1) WHERE entry = 2")

    with pytest.raises(KeyStoreError, match=r"entry 2 of the key store is damaged \(table inputs\)"):
        filled.records.read_inputs(np.array([1, 2]))


# Backups.


def test_backup_holds_no_key_and_cannot_be_opened_by_itself(backup: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"monday\.backup is not a readable key store"):
        KeyStore.open(backup)


def test_deleted_record_is_unreadable_in_a_backup_that_was_taken_before(
    filled: KeyStore, backup: Path, order: Order
) -> None:
    filled.orders.apply(order(1, 1))

    restored = restore(backup, filled.path)

    assert (restored.records, restored.unreadable, restored.last_order) == (6, 1, 0)
    with pytest.raises(BankChanged):
        filled.ciphers.read(np.array([2]))


def test_restored_store_is_refused_until_it_has_caught_up(
    filled: KeyStore, backup: Path, order: Order, fill: Fill, reopen: Reopen
) -> None:
    answer = filled.orders.apply(order(1, 1))
    filled.orders.mark_acknowledged(1)
    restore(backup, filled.path)
    store = reopen(filled)

    for use in (
        lambda: store.records.read_entries(Split.TRAIN),
        lambda: store.records.read_inputs(np.array([1])),
        lambda: store.records.write_tokens(store.generation, np.array([1]), Tokens.zeros(1, 8)),
        lambda: store.privacy.begin(NoisySteps(1, 1.0, 4.0), 1),
        lambda: fill(store, [9]),
    ):
        with pytest.raises(KeyStoreError, match=r"restored from a backup.*run munkey-client catch-up first"):
            use()

    # The coordinator has an answer, and would refuse one that differs in more than its seconds.
    again = store.orders.apply(order(1, 1))
    assert replace(again, seconds=0.0) == replace(answer, seconds=0.0)
    assert store.finish_restoring() == 0
    assert store.records.read_entries(Split.TRAIN)[0].tolist() == [1, 3, 4, 5, 6]
    assert len(store.records.read_keys(np.array([1, 3, 4, 5, 6]))) == 5
    assert fill(store, [1]) is not None
    assert store.records.count(Split.TRAIN) == 5


def test_record_whose_order_the_coordinator_has_forgotten_does_not_come_back(
    filled: KeyStore, backup: Path, order: Order, fill: Fill
) -> None:
    filled.orders.apply(order(1, 1))
    restore(backup, filled.path)

    assert filled.finish_restoring() == 1
    fill(filled, [1])
    assert filled.records.count(Split.TRAIN) == 5


def test_record_whose_order_is_forgotten_does_not_come_into_a_later_store_either(
    filled: KeyStore, backup: Path, order: Order, secret: FederationSecret
) -> None:
    filled.orders.apply(order(1, 1))
    filled.close()
    for file in (*filled.journal.files, filled.path):
        file.unlink(missing_ok=True)
    restore(backup, filled.path, without_journal=True)
    with KeyStore.open(filled.path) as restored:
        assert restored.finish_restoring() == 1
    for file in (filled.path, filled.ciphers.path):
        file.unlink()

    with KeyStore.create(filled.path, filled.description) as later:
        assert later.records.has_deleted(secret.reference(record_id(1)))
        assert not later.records.has_deleted(secret.reference(record_id(2)))


def test_training_under_way_cannot_write_into_a_restored_store(filled: KeyStore, backup: Path) -> None:
    generation = filled.generation
    restore(backup, filled.path)
    filled.finish_restoring()

    with pytest.raises(BankChanged):
        filled.records.write_tokens(generation, np.array([1]), Tokens.zeros(1, 8))


def test_damaged_store_is_replaced_by_a_backup(filled: KeyStore, backup: Path) -> None:
    filled.close()
    filled.path.write_bytes(b"the disk has failed " * 1000)

    restore(backup, filled.path)

    with KeyStore.open(filled.path) as store:
        store.finish_restoring()
        assert store.records.count(Split.TRAIN) == 6


def test_entry_number_of_after_the_backup_is_not_given_again(filled: KeyStore, backup: Path, fill: Fill) -> None:
    fill(filled, [7])
    restore(backup, filled.path)
    filled.finish_restoring()

    fill(filled, [8])

    # The seventh is that of the backup's key.
    assert filled.records.read_entries(Split.TRAIN)[0].tolist() == [1, 2, 3, 4, 5, 6, 9]


def test_restoring_forgets_neither_what_was_spent_nor_what_weights_may_hold(
    make_store: Make, fill: Fill, tmp_path: Path
) -> None:
    store = make_store(guarantee=Guarantee.CERTIFIED)
    fill(store, range(3))
    backup = tmp_path / "monday.backup"
    store.back_up(backup, NOW)
    entries, _ = store.records.read_entries(Split.TRAIN)
    training = store.privacy.begin(NoisySteps(1, 1.0, 4.0), 1)
    tokens = Tokens.zeros(3, store.description.exemplar_size)
    store.records.write_tokens(store.generation, entries, tokens, used=Influence.BOUNDED, training=training)

    restore(backup, store.path)
    store.finish_restoring()

    assert store.privacy.spent() == [NoisySteps(1, 1.0, 4.0)]
    assert store.records.count_influences() == {Influence.BOUNDED: 3}
    assert store.privacy.begin(NoisySteps(1, 1.0, 40.0), 2) == training + 1


def test_backup_of_another_store_is_refused(make_store: Make, backup: Path) -> None:
    other = make_store()

    with pytest.raises(KeyStoreError, match=r"does not have the key of .*or of another key store"):
        restore(backup, other.path)

    assert not other.is_restored
    assert not other.path.with_suffix(".restoring").exists()


def test_damaged_backup_is_refused_and_the_store_stays(filled: KeyStore, backup: Path) -> None:
    backup.write_bytes(b"not a backup " * 1000)

    with pytest.raises(KeyStoreError, match=r"monday\.backup is not a readable backup"):
        restore(backup, filled.path)

    assert filled.records.count(Split.TRAIN) == 6
    assert not filled.is_restored


# What a full disk leaves.


def test_deletion_on_a_full_disk_changes_nothing_and_can_be_done_later(filled: KeyStore, order: Order) -> None:
    (pages,) = filled.database.connection.execute("PRAGMA page_count").fetchone()
    filled.database.connection.execute(f"PRAGMA max_page_count = {pages}")
    big = order(1, *range(100, 4000))

    with pytest.raises(KeyStoreError, match="full"):
        filled.orders.apply(big)

    assert filled.orders.last == 0
    assert filled.ciphers.held().tolist() == [1, 2, 3, 4, 5, 6]
    filled.database.connection.execute("PRAGMA max_page_count = 1000000")
    assert filled.orders.apply(big).state is SiteState.NOTHING_HELD


# The same image.


def test_deleted_image_is_refused_under_another_id_unless_consent_is_new(
    filled: KeyStore,
    order: Order,
    make_records: Callable[..., Dataset],
    encode_records: Callable[[Dataset], Encoding],
    secret: FederationSecret,
) -> None:
    images = make_records([1, 50]).images
    filled.orders.apply(order(1, 1))
    again = make_records([40, 50])
    again.images[:] = images
    encoding = encode_records(again)

    assert filled.records.enrol(again, encoding, secret) == Enrolled(added=1, refused=1)
    consent = frozenset([str(again.record_ids[0])])
    assert filled.records.enrol(again, encoding, secret, new_consent=consent) == Enrolled(added=1, known=1)


# Residue.


@pytest.mark.parametrize(
    "what",
    [what for what in Residue if what is not Residue.IDS],
)
def test_planted_bytes_of_a_deleted_record_are_found(filled: KeyStore, order: Order, what: Residue) -> None:
    content = plant(filled, what, 2)
    other = plant(filled, what, 3)
    filled.orders.apply(order(1, 1))
    folder = filled.path.parent
    assert filled.orders.check_erasure(1, [folder]).erased

    (folder / "spill.tmp").write_bytes(bytes(777) + other)
    assert filled.orders.check_erasure(1, [folder]).erased
    (folder / "spill.tmp").write_bytes(bytes(777) + content)
    checked = filled.orders.check_erasure(1, [folder])

    assert not checked.erased
    assert {found.what for found in checked.found} == {what}
    assert min(found.offset for found in checked.found) == 777


def test_key_that_was_not_destroyed_is_a_fault(filled: KeyStore, order: Order) -> None:
    slot = filled.ciphers.read_slots(np.array([2]))[0]
    filled.orders.apply(order(1, 1))
    with filled.ciphers.path.open("r+b") as file:
        file.seek(2 * len(slot))
        file.write(slot)

    checked = filled.orders.check_erasure(1, [filled.path.parent])

    assert checked.faults == ("1 record keys of records that are not there",)
    assert [found.path.name for found in checked.found] == ["keystore.keys"] * len(checked.found)
    assert checked.found


def test_order_that_was_never_applied_cannot_be_checked(filled: KeyStore) -> None:
    with pytest.raises(KeyStoreError, match="has not applied an order 5; munkey-client status lists"):
        filled.orders.check_erasure(5, [filled.path.parent])
