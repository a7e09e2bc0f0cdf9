"""Full disks, and folders that may not be written to: a clear error, nothing half made, and orders stay pending."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedmunkey.client.deletions.agent import DeletionAgent
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept
from fedmunkey.client.key_store.on_disk.record_ciphers import SLOT_BYTES, make_master_key, read_master_key
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import Acknowledgement, RequestState, SiteState
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from tests.client.conftest import Fill, Order
from tests.patience import PATIENCE

NOBODY = 65_534


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Have the kernel refuse what would make any file longer, in the middle of a write if need be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_journal(store: KeyStore) -> Iterator[None]:
    """Leave no more space for what is written to the journal, which is the longest of the store's files."""
    journal = Journal(store.path)
    journal.query("PRAGMA wal_autocheckpoint = 0")
    with journal.writing() as connection:
        connection.execute("CREATE TABLE filling (content BLOB)")
        connection.execute("INSERT INTO filling VALUES (zeroblob(1000000))")
    # Whoever comes later would begin at the front again if all of it had been brought into the file.
    try:
        with no_file_longer_than(journal.files[1].stat().st_size + 100):
            yield
    finally:
        journal.close()


@pytest.fixture
def filled(store: KeyStore, fill: Fill) -> KeyStore:
    fill(store, range(4))
    return store


# Making files.


@pytest.mark.parametrize("size", [0, 20])
def test_master_key_is_made_whole_or_not_at_all(tmp_path: Path, size: int) -> None:
    with no_file_longer_than(size), pytest.raises(KeyStoreError, match=r"master cannot be made \(File too la"):
        make_master_key(tmp_path / "keystore.master")

    assert list(tmp_path.iterdir()) == []
    assert make_master_key(tmp_path / "keystore.master") == read_master_key(tmp_path / "keystore.master")


@pytest.mark.parametrize("size", [0, 20, 10_000])
def test_store_is_made_whole_or_not_at_all(store: KeyStore, tmp_path: Path, size: int) -> None:
    folder = tmp_path / "full"
    folder.mkdir()

    with no_file_longer_than(size), pytest.raises(KeyStoreError, match=r"(cannot be written|cannot be made) \("):
        KeyStore.create(folder / "keystore.sqlite", store.description)

    assert list(folder.iterdir()) == []
    KeyStore.create(folder / "keystore.sqlite", store.description).close()


def test_store_whose_master_key_cannot_be_made_elsewhere_is_not_made(store: KeyStore, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()

    with pytest.raises(KeyStoreError, match=r"token/master cannot be made \(No such file or directory\); check its fo"):
        KeyStore.create(folder / "keystore.sqlite", store.description, master_key=tmp_path / "token" / "master")

    assert list(folder.iterdir()) == []


# The key file.


def test_enrolment_on_a_full_disk_adds_no_record_and_no_key(filled: KeyStore, fill: Fill) -> None:
    # The fifth record's key would begin where the file may end, and the sixth's is cut in two.
    with no_file_longer_than(6 * SLOT_BYTES + 20), pytest.raises(KeyStoreError, match="cannot be written"):
        filled.ciphers.add({5: bytes(32), 6: bytes(32)})

    assert filled.ciphers.path.stat().st_size == 5 * SLOT_BYTES
    assert filled.ciphers.held().tolist() == [1, 2, 3, 4]
    with no_file_longer_than(5 * SLOT_BYTES), pytest.raises(KeyStoreError, match="cannot be written"):
        fill(filled, [7])
    assert filled.records.count(Split.TRAIN) == 4
    fill(filled, [7])
    assert len(filled.records.read_keys(filled.records.read_entries(Split.TRAIN)[0])) == 5


def test_order_whose_keys_cannot_be_destroyed_is_not_answered_before_they_are(filled: KeyStore, order: Order) -> None:
    kept = os.dup(filled.ciphers._file)
    unwritable = os.open(filled.ciphers.path, os.O_RDONLY)
    os.dup2(unwritable, filled.ciphers._file)

    with pytest.raises(KeyStoreError, match=r"\.keys cannot be written .*, so a deletion is not finished and no"):
        filled.orders.apply(order(1, 1))
    with pytest.raises(KeyStoreError, match="so a deletion is not finished"):
        filled.orders.read_unacknowledged()

    assert filled.journal.read(Kept.ANSWERS) == []
    assert filled.records.count(Split.TRAIN) == 3
    os.dup2(kept, filled.ciphers._file)
    for file in (kept, unwritable):
        os.close(file)
    (answer,) = filled.orders.read_unacknowledged()
    assert (answer.state, answer.records) == (SiteState.ERASED, 1)
    assert filled.ciphers.held().tolist() == [1, 3, 4]


# The journal.


def test_order_whose_answer_cannot_be_noted_is_not_answered(filled: KeyStore, order: Order) -> None:
    with full_journal(filled):
        with pytest.raises(KeyStoreError, match=r"journal cannot be written \(disk I/O error\); check its perm"):
            filled.orders.apply(order(1, 1))
        with pytest.raises(KeyStoreError, match="cannot be written"):
            filled.orders.read_unacknowledged()

    (answer,) = filled.orders.read_unacknowledged()

    assert (answer.state, answer.records) == (SiteState.ERASED, 1)
    assert [number for number, *_ in filled.journal.read(Kept.ANSWERS)] == [1]


def test_row_that_a_full_disk_refused_does_not_count_and_swallows_nothing(filled: KeyStore, order: Order) -> None:
    filled.orders.apply(order(1, 1))

    with full_journal(filled), pytest.raises(KeyStoreError, match="cannot be written"):
        filled.journal.add(Kept.ANSWERS, (2, "x" * 1000, b"2"))
    filled.journal.add(Kept.ANSWERS, (3, "y", b"3"))

    assert [number for number, *_ in filled.journal.read(Kept.ANSWERS)] == [1, 3]


def test_agent_waits_for_free_space_and_the_order_stays_pending(filled: KeyStore, order: Order, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.register("hospital-1")
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            stop, answered = threading.Event(), threading.Event()
            waits: list[float] = []
            paused = threading.Event()

            def draw(low: float, high: float) -> float:
                waits.append(high)
                paused.set()
                return low

            channel = DeletionChannel(server.address)

            def told(answer: Acknowledgement) -> None:
                if answer.number == 2:
                    answered.set()

            agent = DeletionAgent(filled, channel, draw=draw, on_order=told)
            thread = threading.Thread(target=agent.run, args=(stop,))
            with full_journal(filled):
                thread.start()
                service.submit(order(1, 1).request)
                assert paused.wait(PATIENCE)
                (site,) = service.get("request-1").sites
                # That it was sent is noted a moment later.
                assert site.state in (SiteState.PENDING, SiteState.DELIVERED)
            service.submit(order(2, 2).request)
            assert answered.wait(PATIENCE)
            stop.set()
            channel.close()
            thread.join(PATIENCE)
        assert service.get("request-1").state is RequestState.COMPLETED
        assert filled.ciphers.held().tolist() == [1, 4]


# Permissions.


@pytest.fixture
def unwritable(store: KeyStore, fill: Fill) -> Iterator[Path]:
    """A store in a folder that may be read and not written to, as whoever this process is within the test."""
    fill(store, range(3))
    store.close()
    with tempfile.TemporaryDirectory() as made:
        folder, root = Path(made), os.geteuid() == 0
        for file in store.path.parent.iterdir():
            shutil.copy2(file, folder)
            (folder / file.name).chmod(0o400)
        if root:
            for file in (folder, *folder.iterdir()):
                os.chown(file, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        folder.chmod(0o500)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o700)


def test_store_that_may_not_be_written_to_is_one_line_and_not_taken_for_damaged(unwritable: Path) -> None:
    with pytest.raises(KeyStoreError, match=r"sqlite cannot be used \(.*\); check its permissions and the fre"):
        KeyStore.open(unwritable / "keystore.sqlite")


def test_nothing_is_made_in_a_folder_that_may_not_be_written_to(unwritable: Path, store: KeyStore) -> None:
    before = sorted(unwritable.iterdir())

    with pytest.raises(KeyStoreError, match=r"other\.sqlite cannot be made \(Permission denied\); check its folder's"):
        KeyStore.create(unwritable / "other.sqlite", store.description)

    assert sorted(unwritable.iterdir()) == before


def test_full_disk_within_sqlite_is_not_taken_for_damage(filled: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(_path: Path) -> sqlite3.Connection:
        raise full

    monkeypatch.setattr("fedmunkey.client.key_store.on_disk.taking_over.connect", fail)

    with pytest.raises(KeyStoreError, match=r"cannot be used \(database or disk is full\)"):
        KeyStore.open(filled.path)
