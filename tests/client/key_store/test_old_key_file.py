"""What somebody decrypts with an old copy of the key file and the master key, by a program that refuses nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.record_ciphers import cipher_file_of
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.errors import KeyStoreError
from tests.client.conftest import record_id

Order = Callable[..., DeletionOrder]
Fill = Callable[..., Dataset]

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
SLOT = 64


def decrypted(key: bytes, sealed: bytes, place: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], place)
    except (InvalidTag, ValueError):
        return None


def keys_in(key_file: Path, master: Path) -> tuple[dict[int, bytes], list[bytes]]:
    """Return all record keys that a key file holds, by entry, and all keys of backups."""
    content, opened = key_file.read_bytes(), bytes.fromhex(master.read_text())
    records, backups = {}, []
    for entry in range(1, len(content) // SLOT):
        slot = content[entry * SLOT : entry * SLOT + 60]
        if key := decrypted(opened, slot, b"key" + entry.to_bytes(8, "little")):
            records[entry] = key
        if key := decrypted(opened, slot, b"backup" + entry.to_bytes(8, "little")):
            backups.append(key)
    return records, backups


def opened_backup(backup: Path, keys: list[bytes]) -> Path | None:
    """Return the database that a backup is, decrypted with one of some keys; None if no one is its key."""
    content = backup.read_bytes()
    length = int.from_bytes(content[19:23], "little")
    start, rest = content[: 23 + length], content[23 + length :]
    blocks = [rest[place : place + 2**20 + 16] for place in range(0, len(rest), 2**20 + 16)]
    for key in keys:
        made = [
            decrypted(key, number.to_bytes(11, "big") + bytes([number == len(blocks) - 1]) + block, start)
            for number, block in enumerate(blocks)
        ]
        if None not in made:
            found = backup.with_suffix(".opened")
            found.write_bytes(b"".join(block for block in made if block))
            return found
    return None


def readable(key_file: Path, master: Path, database: Path) -> set[str]:
    """Return the ids of the records that can be read in a database, or in a backup, with any key of a key file."""
    records, backups = keys_in(key_file, master)
    if database.read_bytes().startswith(b"fedmunkey backup"):
        found = opened_backup(database, backups)
        if found is None:
            return set()
        database = found
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT entry, content FROM ids").fetchall()
    ids = set()
    for entry, content in rows:
        for key in records.values():
            if plain := decrypted(key, content, b"identities" + entry.to_bytes(8, "little")):
                ids.add(json.loads(plain)[0])
    return ids


def names(*numbers: int) -> set[str]:
    return {record_id(number) for number in numbers}


@pytest.fixture
def filled(store: KeyStore, fill: Fill) -> KeyStore:
    fill(store, range(5))
    return store


@pytest.fixture
def old(filled: KeyStore, tmp_path: Path) -> Path:
    """A copy of the key file, which nobody may make."""
    return Path(shutil.copy(cipher_file_of(filled.path), tmp_path / "offline"))


def back_up(store: KeyStore, path: Path) -> Path:
    store.back_up(path, NOW)
    return path


def copied(store: KeyStore, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as copy:
        store.database.connection.backup(copy)
    return path


def test_old_key_file_opens_no_backup_that_is_later(
    filled: KeyStore, old: Path, fill: Fill, order: Order, tmp_path: Path
) -> None:
    backups = [back_up(filled, tmp_path / "monday.backup")]
    fill(filled, [5])
    backups.append(back_up(filled, tmp_path / "tuesday.backup"))

    assert [readable(old, filled.master_key, backup) for backup in backups] == [set(), set()]
    filled.orders.apply(order(1, 1, 2))
    assert [readable(old, filled.master_key, backup) for backup in backups] == [set(), set()]
    # The site's own key file opens both, and nothing in them that was deleted.
    present = cipher_file_of(filled.path)
    assert readable(present, filled.master_key, backups[0]) == names(0, 3, 4)
    assert readable(present, filled.master_key, backups[1]) == names(0, 3, 4, 5)


def test_old_key_file_reads_nothing_that_was_deleted_in_the_store(filled: KeyStore, old: Path, order: Order) -> None:
    assert readable(old, filled.master_key, copied(filled, old.with_name("before"))) == names(0, 1, 2, 3, 4)

    filled.orders.apply(order(1, 1, 2))

    assert readable(old, filled.master_key, copied(filled, old.with_name("after"))) == names(0, 3, 4)
    # Nor does it find the bytes in the file, wherever they are.
    content = filled.path.read_bytes()
    with closing(sqlite3.connect(old.with_name("before"))) as connection:
        for table in ("keys", "inputs", "ids"):
            rows = connection.execute(f"SELECT entry, content FROM {table}").fetchall()  # noqa: S608
            assert [entry for entry, sealed in rows if sealed[:12] in content] == [1, 4, 5]


def test_backup_and_key_file_of_one_time_are_read_for_ever(filled: KeyStore, order: Order, tmp_path: Path) -> None:
    # What nobody can prevent, and the handbook forbids: a copy of the key file beside a backup that is not later.
    backup = back_up(filled, tmp_path / "monday.backup")
    copy = Path(shutil.copy(cipher_file_of(filled.path), tmp_path / "offline"))

    filled.orders.apply(order(1, 1, 2))

    assert readable(copy, filled.master_key, backup) == names(0, 1, 2, 3, 4)


def test_backup_tells_nothing_without_the_key_file(filled: KeyStore, tmp_path: Path) -> None:
    backup = back_up(filled, tmp_path / "monday.backup").read_bytes()

    for named in (b"SQLite", b"CREATE TABLE", filled.description.site.encode(), filled.description.encoder.encode()):
        assert named not in backup
    with closing(sqlite3.connect(filled.path)) as connection:
        for table in ("records", "keys", "ids", "tombstones", "description"):
            for row in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608
                assert not [value for value in row if isinstance(value, bytes) and value[:16] in backup]
    key_file = cipher_file_of(filled.path).read_bytes()
    slots = [key_file[start : start + SLOT] for start in range(0, len(key_file), SLOT)]
    assert not [slot for slot in slots if slot[:12] in backup]


def test_old_key_file_is_refused_beside_a_later_backup(filled: KeyStore, old: Path, tmp_path: Path) -> None:
    backup = back_up(filled, tmp_path / "monday.backup")
    filled.close()
    kept = filled.path.read_bytes()
    shutil.copy(old, cipher_file_of(filled.path))

    with pytest.raises(KeyStoreError, match=r"keystore\.keys does not have the key of .*: it is a copy from before"):
        restore(backup, filled.path)

    assert filled.path.read_bytes() == kept


@pytest.mark.parametrize("place", [0, 25, 400, -1])
def test_changed_or_shortened_backup_is_not_read(filled: KeyStore, tmp_path: Path, place: int) -> None:
    backup = back_up(filled, tmp_path / "monday.backup")
    content = bytearray(backup.read_bytes())
    content[place] ^= 1
    backup.write_bytes(content)
    with pytest.raises(KeyStoreError, match=r"monday\.backup( is not a readable backup|: it is a copy from before)"):
        restore(backup, filled.path)
    content[place] ^= 1

    for length in (0, 10, 30, len(content) - 1, len(content) - 2**10):
        backup.write_bytes(content[:length])
        with pytest.raises(KeyStoreError, match=r"monday\.backup is not a readable backup"):
            restore(backup, filled.path)
    assert not filled.is_restored
    backup.write_bytes(content)
    assert restore(backup, filled.path).records == 5


def test_backup_of_several_blocks_is_restored(store: KeyStore, fill: Fill, tmp_path: Path) -> None:
    fill(store, range(3000))
    backup = back_up(store, tmp_path / "monday.backup")
    assert backup.stat().st_size > 2 * 2**20
    # Blocks in another order are no backup.
    content = backup.read_bytes()
    start = 23 + int.from_bytes(content[19:23], "little")
    size = 2**20 + 16
    first, second = content[start : start + size], content[start + size : start + 2 * size]
    (tmp_path / "changed").write_bytes(content[:start] + second + first + content[start + 2 * size :])

    with pytest.raises(KeyStoreError, match="changed is not a readable backup"):
        restore(tmp_path / "changed", store.path)
    assert restore(backup, store.path).records == 3000


def test_plain_backup_of_a_version_before_is_restored(filled: KeyStore, order: Order, tmp_path: Path) -> None:
    backup = copied(filled, tmp_path / "monday.backup")
    with closing(sqlite3.connect(backup)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
    filled.orders.apply(order(1, 1))

    assert restore(backup, filled.path).unreadable == 1


def test_backups_key_is_neither_a_records_nor_destroyed(
    filled: KeyStore, fill: Fill, order: Order, tmp_path: Path
) -> None:
    backup = back_up(filled, tmp_path / "monday.backup")
    fill(filled, [5])
    filled.orders.apply(order(1, 1))
    later = back_up(filled, tmp_path / "tuesday.backup")

    assert filled.ciphers.held().tolist() == [1, 3, 4, 5, 7]
    assert filled.ciphers.destroyed == 1
    assert filled.orders.check_erasure(1, [filled.path.parent]).erased
    for each in (backup, later, backup):
        restore(each, filled.path)
        filled.finish_restoring()
    assert restore(later, filled.path).records == 5


def test_backup_leaves_nothing_aside(filled: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in filled.path.parent.iterdir())

    back_up(filled, tmp_path / "monday.backup")

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmunkey.client.key_store.on_disk.restoration.seal_backup", cut)
    with pytest.raises(KeyboardInterrupt):
        back_up(filled, tmp_path / "tuesday.backup")

    assert sorted(path.name for path in filled.path.parent.iterdir()) == before
    assert not (tmp_path / "tuesday.backup").exists()
