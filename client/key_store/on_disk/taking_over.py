"""Bringing up to date what versions before have left: stores of schema 5 to 8, a journal of lines, a file of receipts.

Each step is done whole or not at all, and what is done already is left as it is, so that a crash loses nothing.
"""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.facts import Facts, seal_facts
from fedmunkey.client.key_store.on_disk.journal import Journal, Kept, Row
from fedmunkey.client.key_store.on_disk.raw_reading import opened_raw
from fedmunkey.client.key_store.on_disk.record_ciphers import RecordCiphers, cipher_file_of, read_master_key
from fedmunkey.client.key_store.on_disk.schema import (
    APPLIED_ORDERS,
    KEPT_TOKENS,
    NEIGHBOURS,
    NEIGHBOURS_INDEX,
    RECORD_INDEXES,
    RECORDS,
    REMEMBERED_ANSWERS,
    SCHEMA_VERSION,
    check_version,
    connect,
    create_indexes,
    not_following_references,
    read_version,
    writing,
)
from fedmunkey.client.key_store.on_disk.similarity_masks import mask, mask_key_of
from fedmunkey.client.key_store.on_disk.store_secrets import cipher_of, find_master_key, seal_secrets
from fedmunkey.client.records.dataset import Consent
from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import InvalidProof, KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.private_files import locked_folder
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope

_WITH_COLUMNS, _WITH_LABELS, _WITH_SIMILARITIES, _WITH_ONE_TOKEN = 5, 6, 7, 8
"""Schemas that had answers in columns, labels and similarities that anybody could read, and no tokens kept aside."""

_ROWS = 65_536
"""Of neighbours, masked at once."""

_RECORD = "entry, record_hash, subject_hash, image_hash, split, influence, listed"
_ANSWER = (
    "number, request_id, state, records, entries, guarantee, seconds, reason, last_training, subject_records, "
    "record_epsilon, subject_epsilon"
)
_LINES = {
    "training": (Kept.TRAININGS, ("id", "round", "steps", "sampling_rate", "noise_multiplier")),
    "taken back": (Kept.TAKEN_BACK, ("id",)),
    "influence": (Kept.INFLUENCES, ("influence", "permanent_only")),
    "backup": (Kept.BACKUPS, ("at", "last_order")),
}


def open_store(path: Path) -> sqlite3.Connection:
    """Connect to a store and bring it up to date.

    Raises `KeyStoreError` if its version is newer, or older than 5, and `sqlite3.DatabaseError` if the
    file cannot be used.
    """
    connection = connect(path)
    try:
        check_version(connection, path)
        bring_up_to_date(connection, path)
        create_indexes(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def bring_up_to_date(connection: sqlite3.Connection, store: Path) -> None:
    """Change the tables of a store of a version before in one transaction; those of this version are left alone.

    It may be a copy of the store at the path, beside which the key file and the master key lie. Raises `KeyStoreError`
    if one of those cannot be used.
    """
    if read_version(connection) == SCHEMA_VERSION:
        return
    with not_following_references(connection), writing(connection):
        # Another process may have been as quick.
        if read_version(connection) == _WITH_COLUMNS:
            _write_documents(connection)
        if read_version(connection) == _WITH_LABELS:
            _seal(connection, store)
        if read_version(connection) == _WITH_SIMILARITIES:
            _mask(connection, store)
        if read_version(connection) == _WITH_ONE_TOKEN:
            for statement in KEPT_TOKENS.split(";")[:-1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    # What was readable is in the log still.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _write_documents(connection: sqlite3.Connection) -> None:
    site, delta = connection.execute("SELECT site, delta FROM description").fetchone()
    connection.create_function("document", 12, lambda *columns: _answer(site, delta, *columns).to_json())
    for table in ("applied_orders", "remembered_answers"):
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    for change in (
        APPLIED_ORDERS,
        REMEMBERED_ANSWERS,
        f"INSERT INTO applied_orders SELECT number, request_id, document({_ANSWER}), last_training, "  # noqa: S608
        "finished, acknowledged, NULL FROM applied_orders_before",
        f"INSERT INTO remembered_answers SELECT number, document({_ANSWER}) "  # noqa: S608 (constants)
        "FROM remembered_answers_before",
        "DROP TABLE applied_orders_before",
        "DROP TABLE remembered_answers_before",
        "ALTER TABLE identities RENAME TO ids",
        "ALTER TABLE doomed_keys RENAME TO doomed_record_keys",
        f"PRAGMA user_version = {_WITH_LABELS}",
    ):
        connection.execute(change)


def _seal(connection: sqlite3.Connection, store: Path) -> None:
    """Encrypt what a backup told: labels, consents, the store's own secrets and what is remembered of deleted bytes."""
    master = read_master_key(find_master_key(connection, store))
    hash_key, noise_key = connection.execute("SELECT hash_key, noise_key FROM description").fetchone()
    sequence = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    with closing(RecordCiphers(cipher_file_of(store), master, hash_key)) as ciphers:
        connection.create_function("sealed", 4, partial(_with_facts, ciphers))
        connection.create_function(
            "sealed_print", 2, lambda number, content: seal(cipher_of(master), "fingerprints", number, content)
        )
        columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(applied_orders)")}
        if "request" not in columns:
            connection.execute("ALTER TABLE applied_orders ADD COLUMN request BLOB")
        # Tables that are dropped are overwritten whole; a row that changes may leave a copy of itself.
        for change in (
            "CREATE TABLE ids_sealed (entry INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT",
            "INSERT INTO ids_sealed SELECT entry, sealed(entry, content, label, consent) "
            "FROM ids LEFT JOIN records USING (entry) ORDER BY entry",
            "DROP TABLE ids",
            "ALTER TABLE ids_sealed RENAME TO ids",
            RECORDS.replace("TABLE records", "TABLE records_sealed"),
            f"INSERT INTO records_sealed SELECT {_RECORD} FROM records ORDER BY entry",  # noqa: S608 (constants)
            "DROP TABLE records",
            "ALTER TABLE records_sealed RENAME TO records",
            *RECORD_INDEXES.strip().splitlines(),
            "DELETE FROM sqlite_sequence WHERE name = 'records'",
            "UPDATE fingerprints SET content = sealed_print(number, content)",
            f"PRAGMA user_version = {_WITH_SIMILARITIES}",
        ):
            connection.execute(change)
    if sequence:
        connection.execute("INSERT INTO sqlite_sequence VALUES ('records', ?)", sequence)
    connection.execute("UPDATE description SET hash_key = ?, noise_key = ?", seal_secrets(master, hash_key, noise_key))


def _mask(connection: sqlite3.Connection, store: Path) -> None:
    """Hide how alike neighbours are."""
    cipher = cipher_of(read_master_key(find_master_key(connection, store)))
    key = mask_key_of(cipher, *connection.execute("SELECT hash_key FROM description").fetchone())
    connection.execute("ALTER TABLE neighbours RENAME TO neighbours_before")
    connection.execute("DROP INDEX neighbours_of")
    connection.execute(NEIGHBOURS)
    rows = connection.execute("SELECT entry, neighbour, similarity FROM neighbours_before ORDER BY entry, neighbour")
    while part := rows.fetchmany(_ROWS):
        entries, neighbours, similarities = (np.array(column) for column in zip(*part, strict=True))
        masked = mask(key, entries, neighbours, similarities.astype(np.float32))
        kept = zip(entries.tolist(), neighbours.tolist(), masked.tolist(), strict=True)
        connection.executemany("INSERT INTO neighbours VALUES (?, ?, ?)", kept)
    # Overwritten whole.
    connection.execute("DROP TABLE neighbours_before")
    connection.execute(NEIGHBOURS_INDEX)
    connection.execute(f"PRAGMA user_version = {_WITH_ONE_TOKEN}")


def _with_facts(ciphers: RecordCiphers, entry: int, content: bytes, label: int | None, consent: str | None) -> bytes:
    """Return a record's ids encrypted with its facts; as they are where the record or its key is gone."""
    numbers = np.array([entry])
    if label is None or not any(ciphers.read_slots(numbers)[0]):
        return content
    (key,) = ciphers.read(numbers)
    record_id, subject_id = json.loads(unseal(key, "ids", entry, content))
    return seal_facts(key, entry, record_id, subject_id, Facts(label, consent == Consent.PERMANENT))


def take_over_journal(journal: Journal, description: StoreDescription) -> None:
    """Write a journal of lines, if it is one, as the file of this version, in its place."""
    if _has_lines(journal.path):
        with locked_folder(journal.path.parent):
            if _has_lines(journal.path):
                journal.replace(_read_lines(journal.path, description))


def take_over_receipts(journal: Journal) -> None:
    """Move what a file of receipts beside the journal has, if there is one, into the journal.

    Raises `KeyStoreError` if one of the two cannot be used; the file of receipts stays then.
    """
    path = journal.path.with_name("proofs.sqlite")
    if not path.exists():
        return
    with locked_folder(path.parent):
        # Another process may have been as quick.
        if not path.exists():
            return
        tables = _read_receipts(path)
        with journal.writing() as connection:
            if tables.get("head"):
                # Of a journal that was lost, unlike the head that it had seen.
                connection.execute("DELETE FROM head WHERE size = 0")
            for table, rows in tables.items():
                for row in rows:
                    marks = ", ".join("?" for _ in row)
                    connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608
            connection.create_function("request", 1, _request_of)
            connection.execute(
                "UPDATE OR IGNORE answers SET request = request(receipt) FROM receipts "
                "WHERE receipts.number = answers.number AND answers.request IS NULL"
            )
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _request_of(receipt: bytes) -> bytes | None:
    try:
        return Receipt.of(read_envelope(receipt)).request
    except InvalidProof:
        return None


def _read_receipts(path: Path) -> dict[str, list[Row]]:
    """Return the rows of each table that there is; whoever made the file may have been stopped before any was."""
    try:
        with closing(connect(path)) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_schema WHERE name IN ('receipts', 'head', 'alarms')"
            ).fetchall()
            return {
                name: connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608 (constants)
                for (name,) in names
            }
    except sqlite3.DatabaseError as error:
        raise KeyStoreError(
            f"{path} cannot be used ({error}); put it back from its disk's mirror, or move it away: the receipts in it "
            "are lost then"
        ) from None


def _has_lines(path: Path) -> bool:
    try:
        with opened_raw(path) as file:
            return file.read(1) in (b"", b"\n", b"{")
    except FileNotFoundError:
        return False


def _read_lines(path: Path, description: StoreDescription) -> dict[Kept, list[Row]]:
    """Return the rows that the lines stand for; a line that a crash cut off does not count."""
    rows: dict[Kept, list[Row]] = {kind: [] for kind in Kept}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text) if text else {}
        except ValueError:
            continue
        if line.get("kind") == "answer":
            answer = _answer(description.site, description.delta, *(line[name] for name in _ANSWER.split(", ")))
            rows[Kept.ANSWERS].append((answer.number, answer.to_json(), None))
        elif line.get("kind") in _LINES:
            kind, columns = _LINES[line["kind"]]
            rows[kind].append([line[column] for column in columns])
    return rows


def _answer(site: str, delta: float, *columns: Any) -> Acknowledgement:
    """Return an answer that was kept in columns; one that is not finished has no epsilons yet."""
    number, request_id, state, records, entries, guarantee, seconds, reason, _, size, *epsilons = columns
    losses: list[PrivacyLoss | None] = [None, None]
    if guarantee == Guarantee.CERTIFIED:
        bounds = (math.inf if epsilon is None else epsilon for epsilon in epsilons)
        losses = [PrivacyLoss(bound, delta, of) for bound, of in zip(bounds, (1, size), strict=True)]
    return Acknowledgement(
        number, site, request_id, SiteState(state), records, entries, Guarantee(guarantee), seconds, reason, *losses
    )
