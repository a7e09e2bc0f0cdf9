"""What a journal remembers by hashes: whose records weights may hold and which were deleted, or the worst of both."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress

from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.influence import EVERY_RECORD, ONCE_HELD
from fedmunkey.client.key_store.on_disk.journal import LOST_HEAD, Journal, Kept, Row
from fedmunkey.client.key_store.on_disk.store_secrets import cipher_of
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee, Influence

logger = logging.getLogger(__name__)

_SEALED_AS = ("hash key", 0)

_TOMBSTONES = "SELECT hash, influence, 1 FROM tombstones"
_HASHES = " UNION ".join(
    f"SELECT {name}, influence, 0 FROM records WHERE influence <> 'none'"  # noqa: S608 (names of columns)
    for name in ("record_hash", "image_hash", "subject_hash")
)


def known_tombstones(connection: sqlite3.Connection) -> list[Row]:
    """Return the tombstones of a store as rows of a journal."""
    return connection.execute(_TOMBSTONES).fetchall()


def known_hashes(connection: sqlite3.Connection) -> list[Row]:
    """Return all that a store remembers by hashes as rows of a journal."""
    # Which of an earlier store's records weights hold, a lost journal does not say any more: it may be any.
    any_other = "SELECT ?1, influence, 1 FROM tombstones WHERE hash = ?2 AND influence <> 'none'"
    query = f"{_TOMBSTONES} UNION {_HASHES} UNION {any_other}"
    return connection.execute(query, (EVERY_RECORD, ONCE_HELD)).fetchall()


def tell_hashes(connection: sqlite3.Connection, journal: Journal, master: bytes, hash_key: bytes) -> None:
    """Tell a journal that has no hash key, the version before has made it, what its store remembers by hashes."""
    if not journal.query("SELECT 1 FROM hash_keys LIMIT 1"):
        journal.add_all({Kept.REMEMBERED: known_hashes(connection), Kept.HASH_KEYS: [sealed_key(master, hash_key)]})


def sealed_key(master: bytes, hash_key: bytes) -> Row:
    """Return a hash key as a row of a journal."""
    return (None, seal(cipher_of(master), *_SEALED_AS, hash_key))


def find_hash_key(journal: Journal, master: bytes) -> bytes | None:
    """Return the hash key of the store that a journal lay beside; None if this master key does not open it."""
    for _, sealed in reversed(journal.read(Kept.HASH_KEYS)):
        with suppress(KeyStoreError):
            return unseal(cipher_of(master), *_SEALED_AS, sealed)
    return None


def worst_of(description: StoreDescription, last_training: int = 0) -> dict[Kept, list[Row]]:
    """Return what a journal has to say where another is lost: every record may be in weights, the budget is spent."""
    rows: dict[Kept, list[Row]] = {
        Kept.INFLUENCES: [(Influence.UNBOUNDED.value, 0)],
        Kept.REMEMBERED: [(EVERY_RECORD, Influence.UNBOUNDED.value, 1)],
    }
    if description.guarantee is Guarantee.CERTIFIED:
        # A step without noise: from here on no epsilon bounds what was told.
        rows[Kept.TRAININGS] = [(last_training + 1, 0, 1, 1.0, 0.0)]
    return rows


def begin_lost_journal(journal: Journal, description: StoreDescription) -> None:
    """Make the journal of a site that was used and has none that can be read: it claims the worst, aloud."""
    if journal.is_damaged():
        put_aside(journal)
    journal.create({**worst_of(description), Kept.HEAD: [LOST_HEAD]})
    logger.warning(
        "the site was used before, and its journal %s is lost: the privacy budget counts as spent, every record as one "
        "that weights may hold, and what was seen of the coordinator's log is not known (catch-up --accept-log); if it "
        "is elsewhere, move keystore.* away, put it back with its master key, and begin again; if there never was one, "
        "begin in another folder",
        journal.path,
    )


def put_aside(journal: Journal) -> None:
    """Give a damaged journal another name."""
    for file in journal.files:
        with suppress(FileNotFoundError):
            file.rename(file.with_name(file.name + ".damaged"))
