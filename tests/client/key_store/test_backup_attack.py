"""What somebody learns who has a copy of the store, the federation's secret, guesses of ids and images: nothing.

A backup is sealed as a whole (`test_old_key_file.py`). What is attacked here is the key store's file as it lies, as
backups before were and as other programs copy it.
"""

from __future__ import annotations

import hmac
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.reference_hashes import ReferenceHashes
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.key_store.on_disk.schema import SCHEMA_VERSION, connect, read_version
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.privacy.guarantees import Influence
from tests.client.conftest import record_id, subject_id

LABELS = [3, 1, 3, 3, 0, 2]
SECRET = FederationSecret(b"a secret that sites share")


def values(backup: Path) -> Iterator[object]:
    """Yield everything that stands in a backup's tables."""
    with closing(sqlite3.connect(backup)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            yield from chain.from_iterable(connection.execute(f"SELECT * FROM {table}"))  # noqa: S608


def found(backup: Path, guesses: list[tuple[str, str]], images: np.ndarray) -> int:
    """Return how many guessed ids and known images a backup's holder recognises, by any key that is in it."""
    held = {value for value in values(backup) if isinstance(value, bytes)}
    keys = {SECRET.reference(""), *(value for value in held if 16 <= len(value) <= 64)}
    count = 0
    for key in keys:
        hashes = ReferenceHashes(key)
        wanted = {hashes.image(image) for image in images}
        for record, subject in guesses:
            reference, of_subject = SECRET.reference(record), SECRET.reference(subject)
            wanted |= {hashes.record(reference), hashes.subject(of_subject), reference, of_subject}
            wanted |= {hmac.digest(key, reference, "sha256"), hmac.digest(key, of_subject, "sha256")}
        count += len(wanted & held)
    return count


@pytest.fixture
def attacked(store: KeyStore, fill: Callable[..., Dataset], order: Callable[..., DeletionOrder]) -> KeyStore:
    fill(store, range(6), labels=LABELS)
    fill(store, [9], consent=Consent.PERMANENT)
    list_arrivals(store)
    store.orders.apply(order(1, 5))
    return store


@pytest.fixture
def backup(attacked: KeyStore, tmp_path: Path) -> Path:
    path = tmp_path / "monday.copy"
    with closing(sqlite3.connect(path)) as copy:
        attacked.database.connection.backup(copy)
    return path


def test_copy_and_the_federation_secret_find_nobody_and_tell_no_label(
    attacked: KeyStore, backup: Path, make_records: Callable[..., Dataset]
) -> None:
    guesses = [(record_id(number), subject_id(number)) for number in range(10)]

    assert found(backup, guesses, make_records(range(10)).images) == 0
    # Neither a column nor any text says a label or a consent.
    with closing(sqlite3.connect(backup)) as connection:
        columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(records)")}
        assert columns == {"entry", "record_hash", "subject_hash", "image_hash", "split", "influence", "listed"}
    assert not {value for value in values(backup) if value in {*Consent}}
    content = backup.read_bytes()
    assert attacked.reference_hashes.key not in content
    for number in range(10):
        assert record_id(number).encode() not in content


def test_attack_finds_patients_where_the_hash_key_is_known(attacked: KeyStore, backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE description SET hash_key = ?", (attacked.reference_hashes.key,))

    assert found(backup, [(record_id(1), subject_id(1))], np.empty((0, 1, 8, 8), np.uint8)) == 2


def seen_together(database: Path, keys: np.ndarray) -> int:
    """Return how many pairs of patients, whose images give these keys, are seen to be neighbours."""
    alike = keys @ keys.T
    wanted = alike[np.triu_indices(len(keys), 1)]
    with closing(sqlite3.connect(database)) as connection:
        numbers = [value for row in connection.execute("SELECT * FROM neighbours") for value in row]
    read = [np.float32(value) for value in numbers if isinstance(value, float)]
    read += [value.view(np.float32) for value in np.array([n for n in numbers if isinstance(n, int)], np.int32)]
    return sum(bool(np.isclose(similarity, read, rtol=0, atol=1e-5).any()) for similarity in wanted)


def test_images_of_two_patients_do_not_show_that_both_are_held(
    attacked: KeyStore, backup: Path, make_records: Callable[..., Dataset], encode_records: Callable[..., Encoding]
) -> None:
    keys = encode_records(make_records([*range(5), 9])).keys.numpy()
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT count(*) FROM neighbours").fetchone() == (30,)

    assert seen_together(backup, keys) == 0

    # The site itself reads how alike they are.
    bank, _ = attacked.records.read_entries(Split.TRAIN)
    lists = attacked.records.read_neighbours(bank, bank)
    rows = np.repeat(np.arange(6), 5)
    wanted = (keys @ keys.T)[rows, lists.indices.numpy()[:, :5].reshape(-1)]
    assert np.allclose(lists.similarities.numpy()[:, :5].reshape(-1), wanted, atol=1e-6)


def test_site_itself_reads_labels_and_consents(attacked: KeyStore, reopen: Callable[[KeyStore], KeyStore]) -> None:
    for store in (attacked, reopen(attacked)):
        entries, labels = store.records.read_entries(Split.TRAIN)
        assert labels.tolist() == [*LABELS[:5], 9 % 4]
        assert store.records.count_labels() == {3: 3, 1: 2, 0: 1}
        assert store.records.largest_label() == 3
        assert store.records.count_consents() == {Consent.REVOCABLE: 5, Consent.PERMANENT: 1}
        assert store.records.read_permanent(entries).tolist() == [False] * 5 + [True]


def test_record_that_is_deleted_while_labels_are_read_is_left_out(
    attacked: KeyStore, order: Callable[..., DeletionOrder], reopen: Callable[[KeyStore], KeyStore]
) -> None:
    reader = reopen(attacked)
    assert len(reader.records.read_entries(Split.TRAIN)[0]) == 6

    attacked.orders.apply(order(2, 0, 4))

    assert reader.records.read_entries(Split.TRAIN)[1].tolist() == [*LABELS[1:4], 1]
    assert reopen(attacked).records.count_labels() == {1: 2, 3: 2}


# Stores of schema 6, in which labels, consents and the hash key could be read.


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return put(tmp_path, "schema_6")


def put(folder: Path, schema: str) -> Path:
    path, before = folder / "keystore.sqlite", Path(__file__).parent / schema
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.executescript((before / "keystore.sql").read_text())
    path.with_suffix(".keys").write_bytes(bytes.fromhex((before / "keystore.keys.hex").read_text()))
    shutil.copy(before / "keystore.master", folder)
    path.with_suffix(".master").chmod(0o600)
    return path


def check(store: KeyStore) -> None:
    entries, labels = store.records.read_entries(Split.TRAIN)
    assert (entries.tolist(), labels.tolist()) == ([1, 2, 3, 4], [0, 1, 2, 3])
    assert store.records.read_entries(Split.VAL)[1].tolist() == [1]
    assert store.records.read_permanent(entries).tolist() == [False, True, False, True]
    assert store.records.read_ids(entries)[3] == ("record-3", "patient-1")
    assert store.records.has_deleted(SECRET.reference("record-5"))
    assert store.records.count_influences() == {Influence.NONE: 3, Influence.UNBOUNDED: 2}
    assert store.orders.check_erasure(1, [store.path.parent]).erased


def test_store_of_schema_6_is_sealed_when_it_is_opened(before: Path) -> None:
    with closing(connect(before)) as connection:
        (hash_key,) = connection.execute("SELECT hash_key FROM description").fetchone()

    for _ in range(2):
        with KeyStore.open(before) as store:
            check(store)
            assert read_version(store.database.connection) == SCHEMA_VERSION
            assert store.database.connection.execute("SELECT seq FROM sqlite_sequence").fetchall()[0] == (6,)
            assert store.database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    files = b"".join(path.read_bytes() for path in before.parent.iterdir())
    assert hash_key not in files
    assert not re.search(rb"train\w*revocable|train\w*permanent", files)


@pytest.mark.parametrize("last", ["DELETE FROM sqlite_sequence", "UPDATE fingerprints", "UPDATE description"])
def test_sealing_that_is_interrupted_is_done_again(before: Path, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    interrupt(monkeypatch, before, last)

    with KeyStore.open(before) as store:
        check(store)


def interrupt(monkeypatch: pytest.MonkeyPatch, store: Path, last: str) -> None:
    """Cut the power at a statement while a store is opened."""

    class PowerCutError(Exception): ...

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if statement.startswith(last):
                raise PowerCutError
            return super().execute(statement, *values)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("fedmunkey.client.key_store.on_disk.schema.sqlite3.connect", cutting(Connection))
        with pytest.raises(PowerCutError):
            KeyStore.open(store)


# A store of schema 7, in which it could be read how alike neighbours are.

ALIKE = {
    (1, 2): 0.710436999797821,
    (2, 3): 0.966471254825592,
    (3, 2): 0.966471254825592,
    (4, 3): 0.9439671039581299,
    (6, 1): -0.25288456678390503,
    (6, 2): -0.8605445623397827,
}


@pytest.fixture
def with_similarities(tmp_path: Path) -> Path:
    return put(tmp_path, "schema_7")


@pytest.mark.parametrize("cut", [None, "DROP TABLE neighbours_before", "PRAGMA user_version = 8"])
def test_store_of_schema_7_is_masked_when_it_is_opened(
    with_similarities: Path, monkeypatch: pytest.MonkeyPatch, cut: str | None
) -> None:
    images = np.array([np.random.default_rng(n).integers(0, 256, (1, 4, 4), np.uint8) for n in range(4)])
    keys = np.array(
        [np.random.default_rng(image.ravel().tolist()).normal(size=2).astype(np.float32) for image in images]
    )
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    assert seen_together(with_similarities, keys) == 3
    if cut:
        interrupt(monkeypatch, with_similarities, cut)

    with KeyStore.open(with_similarities) as store:
        for split, entries in ((Split.TRAIN, [1, 2, 3, 4]), (Split.VAL, [6])):
            of = store.records.read_entries(split)[0]
            lists = store.records.read_neighbours(of, np.arange(1, 5))
            assert of.tolist() == entries
            for entry, row, similarities in zip(
                entries, lists.indices.tolist(), lists.similarities.tolist(), strict=True
            ):
                found = {(entry, place + 1): near for place, near in zip(row, similarities, strict=True) if place >= 0}
                assert found == {pair: near for pair, near in ALIKE.items() if pair[0] == entry}
        assert read_version(store.database.connection) == SCHEMA_VERSION
        assert store.database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert store.orders.check_erasure(1, [store.path.parent]).erased
    assert seen_together(with_similarities, keys) == 0
    content = b"".join(path.read_bytes() for path in with_similarities.parent.iterdir())
    assert not [near for near in ALIKE.values() if struct.pack(">d", near) in content]


def cutting(factory: type[sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
    make = sqlite3.connect
    return lambda *arguments, **options: make(*arguments, factory=factory, **options)


def test_backup_of_schema_6_is_sealed_when_it_is_restored(before: Path, tmp_path: Path) -> None:
    backup = tmp_path / "monday.backup"
    with closing(connect(before)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)
    with closing(connect(backup)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
    with KeyStore.open(before) as store:
        store.ciphers.destroy([3])

    assert restore(backup, before).unreadable == 1

    with KeyStore.open(before) as store:
        assert store.records.count_labels() == {0: 1, 1: 1, 3: 1}
        assert store.finish_restoring() == 1
        assert store.records.read_entries(Split.TRAIN)[1].tolist() == [0, 1, 3]
