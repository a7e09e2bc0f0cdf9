"""A site's key store: one SQLite file with its records, keys, exemplar tokens and the orders it has applied.

Nothing in it ever leaves the site. Several processes may have it open: each call is one transaction, and whatever was
computed from a bank that deletions have changed since is refused (`BankChanged`).
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dataset import Consent, Dataset, Split
from client.key_store.contents import Enrolled, StoreDescription, Tokens
from client.key_store.deletion import apply_order, finish_interrupted, read_acknowledgements
from client.key_store.identities import SECRET_BYTES, ReferenceHashes, decrypt_identity, encrypt_identity
from client.key_store.schema import check_version, connect, create_tables, explaining_locks, not_waiting_for_disk
from common.deletion import Acknowledgement, DeletionOrder
from common.encoders import Encoding
from common.errors import BankChanged, KeyStoreError
from common.guarantees import Guarantee
from common.neighbours import NONE, NeighbourLists
from common.references import FederationSecret
from common.settings import ImagePath


class KeyStore:
    """One open key store; `create` and `open` make it, and it is a context manager.

    Parameters
    ----------
    path : Path
        The SQLite file.
    connection : sqlite3.Connection
        A connection that `client.key_store.schema.connect` made.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.description, self.hashes = self._read_description()

    @classmethod
    def create(cls, path: Path, description: StoreDescription) -> Self:
        """Make a new, empty store that only its owner can read.

        Raises
        ------
        KeyStoreError
            If the file is there already.
        """
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            raise KeyStoreError(f"{path} is there already; open it, or choose another folder") from None
        connection = connect(path)
        create_tables(connection)
        connection.execute(
            "INSERT INTO description (only, site, encoder, key_size, input_kind, input_shape, exemplar_size, "
            "list_length, hash_key) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                description.site,
                description.encoder,
                description.key_size,
                description.image_path.value,
                "x".join(str(size) for size in description.input_shape),
                description.exemplar_size,
                description.list_length,
                secrets.token_bytes(32),
            ),
        )
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store.

        Raises
        ------
        KeyStoreError
            If there is no store, the file is no key store, or its schema version is another.
        """
        if not path.is_file():
            raise KeyStoreError(f"there is no key store {path}; enrol the site's records first (munkey-client enrol)")
        connection: sqlite3.Connection | None = None
        try:
            connection = connect(path)
            check_version(connection, path)
            return cls(path, connection)
        except (sqlite3.DatabaseError, KeyStoreError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, KeyStoreError):
                raise
            raise KeyStoreError(f"{path} is not a readable key store ({error}); restore it from a backup") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # What the store holds.

    @property
    def generation(self) -> int:
        """How many deletions have changed the bank; training compares it to see whether what it read still holds."""
        return int(self._connection.execute("SELECT generation FROM description").fetchone()[0])

    def count(self, split: Split) -> int:
        """Return how many records of a split there are."""
        found = self._connection.execute("SELECT count(*) FROM records WHERE split = ?", (split.value,)).fetchone()
        return int(found[0])

    def count_labels(self) -> dict[int, int]:
        """Return how many entries of each class the bank has."""
        rows = self._connection.execute("SELECT label, count(*) FROM records WHERE split = 'train' GROUP BY label")
        return dict(rows.fetchall())

    def largest_label(self) -> int | None:
        """Return the largest class index of any record; None without records."""
        found: int | None = self._connection.execute("SELECT max(label) FROM records").fetchone()[0]
        return found

    def read_entries(self, split: Split) -> tuple[NDArray[np.int64], Tensor]:
        """Return the (n,) entry numbers of a split in order, and their (n,) int64 labels."""
        rows = self._connection.execute(
            "SELECT entry, label FROM records WHERE split = ? ORDER BY entry", (split.value,)
        ).fetchall()
        both = np.array(rows, dtype=np.int64).reshape(len(rows), 2)
        return both[:, 0].copy(), torch.from_numpy(both[:, 1].copy())

    def read_unlisted(self) -> NDArray[np.int64]:
        """Return the entries, of any split, that arrived after neighbour lists were last built."""
        rows = self._connection.execute("SELECT entry FROM records WHERE listed = 0 ORDER BY entry").fetchall()
        return np.array(rows, dtype=np.int64).reshape(-1)

    def read_keys(self, entries: NDArray[np.int64]) -> Tensor:
        """Return (n, key_size) float32 keys of some entries.

        Raises
        ------
        BankChanged
            If one of the entries is not there.
        """
        return self._read_contents("keys", entries, (self.description.key_size,), np.dtype(np.float32))

    def read_inputs(self, entries: NDArray[np.int64]) -> Tensor:
        """Return (n, *input_shape) inputs of some entries; raises `BankChanged` if one is not there."""
        kind = np.dtype(np.uint8 if self.description.image_path is ImagePath.PATCHES else np.float32)
        return self._read_contents("inputs", entries, self.description.input_shape, kind)

    def read_tokens(self, entries: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some entries; zeros for those that have not been trained."""
        tokens = Tokens.zeros(len(entries), self.description.exemplar_size)
        position = {int(entry): row for row, entry in enumerate(entries)}
        for entry, content in self._connection.execute("SELECT entry, content FROM tokens"):
            if entry in position:
                tokens.unpack(position[entry], content)
        return tokens

    def read_neighbours(self, entries: NDArray[np.int64], bank: NDArray[np.int64]) -> NeighbourLists:
        """Return the neighbour lists of some entries as positions in `bank`; both are sorted entry numbers."""
        length = self.description.list_length
        lists = NeighbourLists.empty(len(entries), length)
        if not len(entries):
            return lists
        rows = self._connection.execute(
            "SELECT entry, neighbour, similarity FROM neighbours WHERE entry BETWEEN ? AND ?",
            (int(entries[0]), int(entries[-1])),
        )
        found = np.fromiter(rows, dtype=[("entry", np.int64), ("neighbour", np.int64), ("similarity", np.float32)])
        found = found[np.isin(found["entry"], entries) & np.isin(found["neighbour"], bank)]
        found = found[np.lexsort((found["neighbour"], -found["similarity"], found["entry"]))]
        row = np.searchsorted(entries, found["entry"])
        place = np.arange(len(row)) - np.searchsorted(row, row)
        lists.indices.numpy()[row, place] = np.searchsorted(bank, found["neighbour"])
        lists.similarities.numpy()[row, place] = found["similarity"]
        return lists

    def count_consents(self) -> dict[Consent, int]:
        """Return how many records, of any split, there are with each consent."""
        rows = self._connection.execute("SELECT consent, count(*) FROM records GROUP BY consent")
        return {Consent(consent): count for consent, count in rows.fetchall()}

    def count_trained(self) -> int:
        """Return how many entries have an exemplar token that has been trained."""
        query = "SELECT count(*) FROM tokens JOIN records USING (entry) WHERE substr(content, 1, 8) <> zeroblob(8)"
        return int(self._connection.execute(query).fetchone()[0])

    def holds(self, reference: bytes) -> bool:
        """Return whether a record is here."""
        return self._is_known(reference)

    def has_deleted(self, reference: bytes) -> bool:
        """Return whether a record was named by a deletion order, and not enrolled with new consent since."""
        return self._is_tombstoned(reference, reference)

    def agrees_with(self, secret: FederationSecret) -> bool:
        """Return whether a secret is the one that made the references here; any is, while there is no record."""
        row = self._connection.execute(
            "SELECT content, identity, record_hash FROM records JOIN secrets USING (entry) LIMIT 1"
        ).fetchone()
        if row is None:
            return True
        record_id, _ = decrypt_identity(row[0], row[1])
        return hmac.compare_digest(self.hashes.record(secret.reference(record_id)), row[2])

    def read_applied(self) -> list[Acknowledgement]:
        """Return the answers to every order that this site has applied, oldest first."""
        return list(read_acknowledgements(self._connection, self.description.site, "TRUE"))

    # What changes it.

    def enrol(
        self,
        records: Dataset,
        encoding: Encoding,
        secret: FederationSecret,
        *,
        new_consent: frozenset[str] = frozenset(),
    ) -> Enrolled:
        """Add records with their keys and inputs in one transaction.

        Parameters
        ----------
        records : Dataset
            n records; those of the `train` split become entries of the bank, the others are held out.
        encoding : Encoding
            Keys and features of the n images.
        secret : FederationSecret
            Makes the references by which deletion orders will name the records.
        new_consent : frozenset of str
            Record ids for which consent was given anew after a deletion.
        """
        references = [secret.reference(identifier) for identifier in records.record_ids]
        subjects = [secret.reference(identifier) for identifier in records.subject_ids]
        patches = self.description.image_path is ImagePath.PATCHES
        inputs = records.images if patches else encoding.features.numpy().astype(np.float32)
        keys = encoding.keys.numpy().astype(np.float32)
        added = known = refused = 0
        with self._writing():
            for row, (reference, subject) in enumerate(zip(references, subjects, strict=True)):
                if self._is_known(reference):
                    known += 1
                    continue
                if self._is_tombstoned(reference, subject):
                    if str(records.record_ids[row]) not in new_consent:
                        refused += 1
                        continue
                    self._lift_tombstone(reference)
                self._insert(records, row, (reference, subject), (keys[row], inputs[row]))
                added += 1
        return Enrolled(added, known, refused)

    def write_neighbours(
        self, generation: int, entries: NDArray[np.int64], lists: NeighbourLists, bank: NDArray[np.int64]
    ) -> None:
        """Replace the neighbour lists of some entries, given as positions in `bank`.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`; nothing is written.
        """
        places = (lists.indices != NONE).numpy()
        sources = np.repeat(entries, places.sum(1)).tolist()
        targets = bank[lists.indices.numpy()[places]].tolist()
        with self._writing(generation) as connection:
            numbers = [(entry,) for entry in entries.tolist()]
            connection.executemany("DELETE FROM neighbours WHERE entry = ?", numbers)
            try:
                connection.executemany(
                    "INSERT INTO neighbours (entry, neighbour, similarity) VALUES (?, ?, ?)",
                    zip(sources, targets, lists.similarities.numpy()[places].tolist(), strict=True),
                )
            except sqlite3.IntegrityError:
                # A held-out record's deletion leaves the generation as it was.
                raise BankChanged("a record was deleted while its neighbours were being searched") from None
            connection.executemany("UPDATE records SET listed = 1 WHERE entry = ?", numbers)

    def write_tokens(self, generation: int, entries: NDArray[np.int64], tokens: Tokens) -> None:
        """Write trained tokens back in one transaction.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`; nothing is written.
        """
        with self._writing(generation) as connection:
            connection.executemany(
                "UPDATE tokens SET content = ? WHERE entry = ?", zip(tokens.pack(), entries.tolist(), strict=True)
            )

    # Deletion orders.

    @property
    def last_order(self) -> int:
        """The number of the last order that this site has applied; 0 before the first."""
        return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM applied_orders").fetchone()[0])

    def apply(self, order: DeletionOrder, guarantee: Guarantee) -> Acknowledgement:
        """Carry out a deletion order, once; a second time it returns the same answer.

        When this returns, neither the database nor its write-ahead log holds the bytes of what was deleted.

        Raises
        ------
        KeyStoreError
            If the order is for another site, skips one, or another process keeps the log from being emptied; the order
            can be applied again.
        """
        site = self.description.site
        if order.site != site:
            raise KeyStoreError(f"order {order.number} is for {order.site}, this key store belongs to {site}")
        expected = self.last_order + 1
        if order.number > expected:
            raise KeyStoreError(f"order {order.number} came before order {expected}; watch the stream from the start")
        return apply_order(self._connection, order, guarantee, self.hashes)

    def read_unacknowledged(self) -> list[Acknowledgement]:
        """Return the answers that the deletion service has not been told yet, oldest first.

        A deletion whose erasure a crash interrupted is finished first.
        """
        finish_interrupted(self._connection)
        site = self.description.site
        return list(read_acknowledgements(self._connection, site, "acknowledged = 0"))

    def mark_acknowledged(self, number: int) -> None:
        """Note that the deletion service has this site's answer to an order."""
        with not_waiting_for_disk(self._connection), self._writing() as connection:
            connection.execute("UPDATE applied_orders SET acknowledged = 1 WHERE number = ?", (number,))

    def _read_description(self) -> tuple[StoreDescription, ReferenceHashes]:
        row = self._connection.execute(
            "SELECT site, encoder, key_size, input_kind, input_shape, exemplar_size, list_length, hash_key "
            "FROM description"
        ).fetchone()
        if row is None:
            raise KeyStoreError(f"{self.path} was not finished when it was made; remove it and enrol the records again")
        site, encoder, key_size, kind, shape, exemplar_size, list_length, hash_key = row
        sizes = tuple(int(size) for size in shape.split("x"))
        found = StoreDescription(site, encoder, key_size, ImagePath(kind), sizes, exemplar_size, list_length)
        return found, ReferenceHashes(hash_key)

    @contextmanager
    def _writing(self, generation: int | None = None) -> Iterator[sqlite3.Connection]:
        """Open a write transaction, after checking that the bank is still the one of `generation`."""
        with explaining_locks():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if generation is not None and generation != self.generation:
                    raise BankChanged("entries were deleted while in use; what was computed from them is dropped")
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _read_contents(
        self, table: str, entries: NDArray[np.int64], shape: tuple[int, ...], kind: np.dtype[np.generic]
    ) -> Tensor:
        array = np.empty((len(entries), *shape), dtype=kind)
        query = f"SELECT content FROM {table} JOIN records USING (entry) WHERE entry = ?"  # noqa: S608 (a table's name)
        for row, entry in enumerate(entries.tolist()):
            found = self._connection.execute(query, (entry,)).fetchone()
            if found is None:
                raise BankChanged("an entry was deleted while the bank was being read; read it again")
            array[row] = np.frombuffer(found[0], dtype=kind).reshape(shape)
        return torch.from_numpy(array)

    def _is_known(self, reference: bytes) -> bool:
        query = "SELECT 1 FROM records WHERE record_hash = ?"
        return self._connection.execute(query, (self.hashes.record(reference),)).fetchone() is not None

    def _is_tombstoned(self, record: bytes, subject: bytes) -> bool:
        hashes = (self.hashes.record(record), self.hashes.subject(subject))
        query = "SELECT 1 FROM tombstones WHERE hash IN (?, ?)"
        return self._connection.execute(query, hashes).fetchone() is not None

    def _lift_tombstone(self, record: bytes) -> None:
        """Forget that a record was deleted; its subject's other deleted records stay refused."""
        self._connection.execute("DELETE FROM tombstones WHERE hash = ?", (self.hashes.record(record),))

    def _insert(
        self,
        records: Dataset,
        row: int,
        references: tuple[bytes, bytes],
        arrays: tuple[NDArray[np.float32], NDArray[np.generic]],
    ) -> None:
        secret = secrets.token_bytes(SECRET_BYTES)
        split = str(records.splits[row])
        entry = self._connection.execute(
            "INSERT INTO records (record_hash, subject_hash, identity, label, split, consent) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                self.hashes.record(references[0]),
                self.hashes.subject(references[1]),
                encrypt_identity(secret, str(records.record_ids[row]), str(records.subject_ids[row])),
                int(records.labels[row]),
                split,
                str(records.consents[row]),
            ),
        ).lastrowid
        contents = {"secrets": secret, "keys": arrays[0].tobytes(), "inputs": arrays[1].tobytes()}
        if split == Split.TRAIN:
            contents["tokens"] = bytes(Tokens.packed_size(self.description.exemplar_size))
        for table, content in contents.items():
            self._connection.execute(f"INSERT INTO {table} (entry, content) VALUES (?, ?)", (entry, content))  # noqa: S608
