"""A copy of the key file that was made before a deletion is refused, and brings no deleted record back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.record_ciphers import Epoch, cipher_file_of
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.errors import KeyStoreError

Order = Callable[..., DeletionOrder]
OLDER = r"keystore\.keys is an older copy \(epoch 0; .* epoch 1\), .*put the site's own key file back and destroy this"


@pytest.fixture
def filled(store: KeyStore, fill: Callable[..., Dataset]) -> KeyStore:
    fill(store, range(5))
    return store


def put_back(store: KeyStore, copy: Path) -> None:
    store.close()
    shutil.copy(copy, cipher_file_of(store.path))


@pytest.fixture
def copy(filled: KeyStore, tmp_path: Path) -> Path:
    """The copy of the key file that the handbook once told operators to keep."""
    return Path(shutil.copy(cipher_file_of(filled.path), tmp_path / "offline"))


def test_older_key_file_is_refused_after_a_deletion(filled: KeyStore, copy: Path, order: Order) -> None:
    filled.orders.apply(order(1, 1))
    put_back(filled, copy)

    with pytest.raises(KeyStoreError, match=OLDER):
        KeyStore.open(filled.path)


@pytest.mark.parametrize("lost", ["journal", "nothing"])
def test_older_key_file_is_known_by_the_store_where_the_journal_is_lost(
    filled: KeyStore, copy: Path, order: Order, lost: str
) -> None:
    filled.orders.apply(order(1, 1))
    put_back(filled, copy)
    if lost == "journal":
        filled.path.with_suffix(".journal").unlink()

    for _ in range(2):
        with pytest.raises(KeyStoreError, match=OLDER):
            KeyStore.open(filled.path)


def test_older_key_file_with_an_old_backup_brings_nothing_back(filled: KeyStore, order: Order, tmp_path: Path) -> None:
    filled.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))
    copy = Path(shutil.copy(cipher_file_of(filled.path), tmp_path / "offline"))
    filled.orders.apply(order(1, 1, 2))
    put_back(filled, copy)

    with pytest.raises(KeyStoreError, match=OLDER):
        restore(tmp_path / "monday.backup", filled.path)


def test_store_knows_that_keys_were_destroyed_when_it_was_restored(
    filled: KeyStore, fill: Callable[..., Dataset], tmp_path: Path
) -> None:
    filled.back_up(tmp_path / "monday.backup", datetime(2026, 1, 5, 8, tzinfo=UTC))
    fill(filled, [5])
    copy = Path(shutil.copy(cipher_file_of(filled.path), tmp_path / "offline"))
    restore(tmp_path / "monday.backup", filled.path)
    filled.finish_restoring()
    put_back(filled, copy)
    filled.path.with_suffix(".journal").unlink()

    with pytest.raises(KeyStoreError, match=OLDER):
        KeyStore.open(filled.path)


def test_copy_that_went_another_way_is_refused(
    filled: KeyStore, copy: Path, order: Order, reopen: Callable[[KeyStore], KeyStore]
) -> None:
    # As often as the other, but for another record.
    other = reopen(filled).ciphers
    filled.orders.apply(order(1, 1))
    kept = cipher_file_of(filled.path).read_bytes()
    shutil.copy(copy, cipher_file_of(filled.path))
    assert other.destroy([3]).number == 1

    with pytest.raises(KeyStoreError, match=r"older copy \(epoch 1; .* epoch 1\)"):
        KeyStore.open(filled.path)

    cipher_file_of(filled.path).write_bytes(kept)
    KeyStore.open(filled.path).close()


def test_copy_of_after_the_last_deletion_is_as_good(filled: KeyStore, order: Order) -> None:
    filled.orders.apply(order(1, 1))
    assert filled.ciphers.epoch.number == 1
    put_back(filled, Path(shutil.copy(cipher_file_of(filled.path), filled.path.with_suffix(".other"))))

    KeyStore.open(filled.path).close()


def test_deletion_that_is_interrupted_before_its_epoch_is_remembered_is_finished(
    filled: KeyStore, order: Order, reopen: Callable[[KeyStore], KeyStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(Exception): ...

    def fail(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr("fedmunkey.client.key_store.on_disk.journal.Journal.add_all", fail)
        with pytest.raises(PowerCutError):
            filled.orders.apply(order(1, 1))

    again = reopen(filled)
    again.orders.read_unacknowledged()

    assert again.ciphers.epoch.number == 2
    assert again.ciphers.epoch != Epoch(2)
    reopen(filled)


def test_key_file_is_opened_while_another_process_destroys_keys(
    filled: KeyStore, reopen: Callable[[KeyStore], KeyStore]
) -> None:
    other = reopen(filled).ciphers
    with ThreadPoolExecutor(1) as threads:
        destroying = threads.submit(lambda: [other.destroy([]) for _ in range(50)])
        while not destroying.done():
            reopen(filled).close()
    assert [epoch.number for epoch in destroying.result()] == list(range(1, 51))
