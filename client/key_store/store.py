"""A site's key store: one SQLite file with its records, keys, exemplar tokens and the orders it has applied.

Nothing in it ever leaves the site. Several processes may have it open: each call is one transaction, and whatever was
computed from a bank that deletions have changed since is refused (`BankChanged`).
"""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.dataset import Consent, Dataset, Split
from client.key_store.contents import Enrolled, StoreDescription, Tokens
from client.key_store.creation import create_files
from client.key_store.deletion import Surroundings, apply_order, finish_interrupted, read_acknowledgements
from client.key_store.description import Identity, read_identity
from client.key_store.encryption import OVERHEAD, seal, unseal, unseal_identity
from client.key_store.enrolment import Arrivals, add_records, has_tombstone, is_known, is_tombstoned
from client.key_store.erasure_check import ErasureCheck, check_erasure
from client.key_store.identities import ReferenceHashes
from client.key_store.influence import count_influences, count_largest_subject, raise_influence
from client.key_store.journal import BACKUP, INFLUENCE, Journal
from client.key_store.key_file import KeyFile, key_file_of, master_key_of, read_master_key
from client.key_store.lost_journal import write_again
from client.key_store.neighbour_rows import read_lists, write_lists
from client.key_store.privacy import PrivacyAccount
from client.key_store.refusal import find_order, refuse_order
from client.key_store.restoration import back_up, finish_restoring
from client.key_store.schema import cannot_be_used, check_version, connect, not_waiting_for_disk, writing
from common.deletion import Acknowledgement, DeletionOrder
from common.encoders import Encoding
from common.errors import BankChanged, KeyStoreError
from common.failpoints import Failpoint, hit
from common.guarantees import Influence, PrivacyLoss
from common.neighbours import NeighbourLists
from common.noisy_steps import NoisySteps
from common.references import FederationSecret
from common.settings import ImagePath

_BLOCK = 1024


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
        self._identity: Identity = read_identity(connection, path)
        self.journal = Journal.of(path)
        if not self.journal.path.exists():
            write_again(connection, self.journal)
        self.keys = KeyFile(key_file_of(path), read_master_key(self.master_key), self.hashes.key)
        self._privacy = PrivacyAccount(connection, self.description, self.journal)
        self._noted: list[dict[str, str | int | float | None]] = []
        self._around = Surroundings(self._identity, self.keys, self._privacy, self.journal)

    @classmethod
    def create(
        cls,
        path: Path,
        description: StoreDescription,
        *,
        noise_key: bytes | None = None,
        master_key: Path | None = None,
    ) -> Self:
        """Make an empty store that only its owner can read.

        Parameters
        ----------
        path : Path
            A file that does not exist.
        description : StoreDescription
            What fixes the store's contents.
        noise_key : bytes, optional
            32 bytes, where a simulation is to be repeatable. By default there is none, as it must be at a hospital.
        master_key : Path, optional
            A file elsewhere for the master key, which is made if it is not there; by default it lies beside the store.

        Raises
        ------
        KeyStoreError
            If the file is there already or cannot be made, or the noise key has another length; nothing is left then.
        """
        create_files(path, description, noise_key, master_key)
        return cls(path, connect(path))

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
            if cannot_be_used(error):
                raise KeyStoreError(
                    f"the key store {path} cannot be used ({error}); check its permissions and the free space on its "
                    "disk, and try again when no other process is busy with it"
                ) from None
            raise KeyStoreError(f"{path} is not a readable key store ({error}); restore it from a backup") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and the key file."""
        self._connection.close()
        self.keys.close()

    @property
    def description(self) -> StoreDescription:
        """What fixes the store's contents, and what the site has promised its patients."""
        return self._identity.description

    @property
    def hashes(self) -> ReferenceHashes:
        """Names records and subjects within the store."""
        return self._identity.hashes

    @property
    def master_key(self) -> Path:
        """Where the master key is kept."""
        return self._identity.master_key or master_key_of(self.path)

    def draw_noise_key(self) -> bytes:
        """Return 32 bytes, the seed of one training's privacy noise; they must never be written down or leave the site.

        They are fresh at every call, unless the store was made for a simulation that is to be repeatable.
        """
        return self._identity.draw_noise_key()

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

    @property
    def is_restored(self) -> bool:
        """Whether the store is from a backup and has not caught up with deletions; nothing in it can be used then."""
        return bool(self._connection.execute("SELECT restored FROM description").fetchone()[0])

    def _check_caught_up(self) -> None:
        if self.is_restored:
            raise KeyStoreError(
                "the key store was restored from a backup and may hold records that were deleted since; "
                "run munkey-client catch-up first"
            )

    def read_entries(self, split: Split) -> tuple[NDArray[np.int64], Tensor]:
        """Return the (n,) entry numbers of a split in order, and their (n,) int64 labels.

        Raises
        ------
        KeyStoreError
            If the store is restored and has not caught up, as everything that reads or changes records does.
        """
        self._check_caught_up()
        rows = self._connection.execute(
            "SELECT entry, label FROM records WHERE split = ? ORDER BY entry", (split.value,)
        ).fetchall()
        both = np.array(rows, dtype=np.int64).reshape(len(rows), 2)
        return both[:, 0].copy(), torch.from_numpy(both[:, 1].copy())

    def read_unlisted(self) -> NDArray[np.int64]:
        """Return the entries, of any split, that arrived after neighbour lists were last built."""
        rows = self._connection.execute("SELECT entry FROM records WHERE listed = 0 ORDER BY entry").fetchall()
        return np.array(rows, dtype=np.int64).reshape(-1)

    def read_permanent(self, entries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) whether the consent of each of some entries is permanent; raises `BankChanged` as `read_keys`."""
        rows = self._connection.execute("SELECT entry, consent FROM records").fetchall()
        permanent = {entry: consent == Consent.PERMANENT for entry, consent in rows}
        try:
            return np.array([permanent[entry] for entry in entries.tolist()], dtype=np.bool_)
        except KeyError:
            raise _missing_entry() from None

    def read_identities(self, entries: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return the record's and the subject's id of each of some entries; raises `BankChanged` as `read_keys`."""
        sealed = self._read_rows("SELECT entry, identity FROM records", entries)
        rows = zip(self.keys.read(entries), entries.tolist(), sealed, strict=True)
        return [unseal_identity(key, entry, identity) for key, entry, identity in rows]

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
        for start, part in _blocks(entries):
            sealed = self._read_rows("SELECT entry, content FROM tokens JOIN records USING (entry)", part)
            rows = zip(self.keys.read(part), part.tolist(), sealed, strict=True)
            for row, (key, entry, content) in enumerate(rows, start=start):
                if content != bytes(len(content)):
                    tokens.unpack(row, unseal(key, "tokens", entry, content))
        return tokens

    def read_neighbours(self, entries: NDArray[np.int64], bank: NDArray[np.int64]) -> NeighbourLists:
        """Return the neighbour lists of some entries as positions in `bank`; both are sorted entry numbers."""
        return read_lists(self._connection, self.description.list_length, entries, bank)

    def count_consents(self) -> dict[Consent, int]:
        """Return how many records, of any split, there are with each consent."""
        rows = self._connection.execute("SELECT consent, count(*) FROM records GROUP BY consent")
        return {Consent(consent): count for consent, count in rows.fetchall()}

    def count_trained(self) -> int:
        """Return how many entries have an exemplar token that has been trained."""
        entries, _ = self.read_entries(Split.TRAIN)
        return sum(int((self.read_tokens(part).steps > 0).sum()) for _, part in _blocks(entries))

    def holds(self, reference: bytes) -> bool:
        """Return whether a record is here."""
        return is_known(self._connection, self.hashes, reference)

    def has_deleted(self, reference: bytes) -> bool:
        """Return whether an order named a record itself, or deleted it, and it was not enrolled with new consent since.

        A subject of the same name is another matter; `refuses` asks for both.
        """
        return has_tombstone(self._connection, self.hashes.record(reference))

    def refuses(self, record: bytes, subject: bytes) -> bool:
        """Return whether `enrol` leaves a record out, given its reference and its subject's, unless consent is new."""
        return is_tombstoned(self._connection, self.hashes, record, subject)

    def has_deleted_image(self, image: NDArray[np.uint8]) -> bool:
        """Return whether an image was that of a deleted record, and not enrolled with new consent since."""
        return has_tombstone(self._connection, self.hashes.image(image))

    def agrees_with(self, secret: FederationSecret) -> bool:
        """Return whether a secret is the one that made the references here; any is, while there is no record."""
        row = self._connection.execute("SELECT entry, record_hash FROM records LIMIT 1").fetchone()
        if row is None:
            return True
        ((record_id, _),) = self.read_identities(np.array(row[:1]))
        return hmac.compare_digest(self.hashes.record(secret.reference(record_id)), row[1])

    def read_applied(self) -> list[Acknowledgement]:
        """Return the answers to every order that this site has applied, oldest first."""
        return list(read_acknowledgements(self._connection, self.description, "TRUE"))

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
        arrivals = Arrivals.of(records, encoding, secret, self.description)
        with self._writing() as connection:
            self._check_caught_up()
            return add_records(connection, self._identity, self.keys, arrivals, new_consent)

    def write_neighbours(
        self, generation: int, entries: NDArray[np.int64], lists: NeighbourLists, bank: NDArray[np.int64]
    ) -> None:
        """Replace the neighbour lists of some entries, given as positions in `bank`.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`; nothing is written.
        """
        with self._writing(generation) as connection:
            write_lists(connection, entries, lists, bank)

    def write_tokens(
        self,
        generation: int,
        entries: NDArray[np.int64],
        tokens: Tokens,
        *,
        used: Influence = Influence.NONE,
        used_entries: NDArray[np.int64] | None = None,
        training: int | None = None,
    ) -> None:
        """Write trained tokens back in one transaction, after which the shared weights trained here may leave the site.

        Parameters
        ----------
        generation : int
            Of the bank that was trained on.
        entries : ndarray
            (n,) entries of the tokens.
        tokens : Tokens
            Their n rows.
        used : Influence
            What the shared weights may hold of the records that they were trained on; an influence never falls.
        used_entries : ndarray, optional
            (m,) entries that the shared weights were trained on; all of `entries` by default.
        training : int, optional
            The number that `begin_training` gave; the training counts as spent from here on.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`, or another process has begun training; nothing is written.
        """
        if len(tokens.offsets) != len(entries):
            raise ValueError(f"{len(tokens.offsets)} tokens for {len(entries)} entries")
        hit(Failpoint.WRITE_BACK_BEFORE_BEGIN)
        with self._writing(generation) as connection:
            if training is not None:
                self._privacy.release(training)
            used_entries = entries if used_entries is None else used_entries
            self._note_influence(used_entries, used)
            raise_influence(connection, used_entries, used)
            packed = tokens.pack()
            for _, part in _blocks(entries):
                keys = self.keys.read(part)
                connection.executemany(
                    "UPDATE tokens SET content = ? WHERE entry = ?",
                    [
                        (seal(key, "tokens", entry, content) if any(content) else bytes(len(content) + OVERHEAD), entry)
                        for key, entry, content in zip(keys, part.tolist(), packed, strict=False)
                    ],
                )
            hit(Failpoint.WRITE_BACK_BEFORE_COMMIT)
        hit(Failpoint.WRITE_BACK_AFTER_COMMIT)

    def _note_influence(self, entries: NDArray[np.int64], used: Influence) -> None:
        """Write down what weights that are about to leave may hold, so that no restored backup claims less."""
        if used is Influence.NONE or not len(entries):
            return
        permanent_only = int(self.read_permanent(entries).all())
        line: dict[str, str | int | float | None] = {"influence": used.value, "permanent_only": permanent_only}
        if line not in self._noted:
            self.journal.add(INFLUENCE, line)
            self._noted.append(line)

    # What training spends of the patients' privacy.

    def begin_training(self, training: NoisySteps, round_number: int) -> int:
        """Enter a training with noise that is about to begin, and return its number for `write_tokens`.

        Trainings that were begun before and not released are struck out: whoever began them was stopped before
        anything left the site, or is overtaken and cannot release.

        Raises
        ------
        PrivacyBudgetSpent
            If with it the privacy loss of a record would exceed what the site has promised; nothing is written.
        """
        self._check_caught_up()
        return self._privacy.begin(training, round_number)

    def take_back_training(self, number: int) -> None:
        """Strike out a training whose weights, although `write_tokens` let them, have not left and will not leave.

        Raises `KeyStoreError` if that cannot be written; the training stays counted then.
        """
        self._privacy.take_back(number)

    def spent(self) -> list[NoisySteps]:
        """Return every training with noise whose weights may have left the site, oldest first."""
        return self._privacy.spent()

    def privacy_loss(self, records: int = 1) -> PrivacyLoss:
        """Return what the weights that may have left the site can tell of some records of one subject.

        It takes up to seconds the first time after each training.
        """
        return self._privacy.loss(records)

    def largest_subject(self) -> int:
        """Return the most training records that one subject has here; 0 without records."""
        return count_largest_subject(self._connection)

    def count_influences(self) -> dict[Influence, int]:
        """Return how many records, of any split, there are of each influence."""
        return count_influences(self._connection)

    # Deletion orders.

    @property
    def last_order(self) -> int:
        """The number of the last order that this site has applied; 0 before the first."""
        return int(self._connection.execute("SELECT coalesce(max(number), 0) FROM applied_orders").fetchone()[0])

    def apply(self, order: DeletionOrder) -> Acknowledgement:
        """Carry out a deletion order, once; a second time it returns the same answer.

        The answer's guarantee is the site's promise, or less where shared weights that left the site may hold more of
        a deleted record than the promise allows.

        When this returns, neither the database nor its write-ahead log holds the bytes of what was deleted.

        Raises
        ------
        KeyStoreError
            If the order is for another site, skips one, or another process keeps the log from being emptied; the order
            can be applied again.
        """
        self._check_turn(order)
        return apply_order(self._connection, order, self._around)

    def refuse(self, order: DeletionOrder, reason: str) -> Acknowledgement:
        """Answer an order without carrying it out; nothing is deleted. Raises as `apply` does.

        An order that was answered before keeps its answer.
        """
        self._check_turn(order)
        refuse_order(self._connection, order, reason)
        return next(read_acknowledgements(self._connection, self.description, f"number = {order.number}"))

    def find_order(self, request_id: str) -> int | None:
        """Return the number of the first order that brought a request, carried out or refused; None if none has."""
        return find_order(self._connection, request_id)

    def read_unacknowledged(self) -> list[Acknowledgement]:
        """Return the answers that the deletion service has not been told yet, oldest first.

        A deletion whose erasure a crash interrupted is finished first.
        """
        finish_interrupted(self._connection, self._around)
        return list(read_acknowledgements(self._connection, self.description, "acknowledged = 0"))

    def finish_restoring(self) -> int:
        """Make a restored store usable after every order since the backup has been applied again.

        Records whose keys were destroyed go, whether an order named them or not, and so do keys without a record.

        Returns
        -------
        int
            Records that no order named, because the coordinator has forgotten it.
        """
        if not self.is_restored:
            return 0
        return finish_restoring(self._connection, self.keys)

    def back_up(self, output: Path, now: datetime) -> int:
        """Copy the store, while it is in use, into a new file; return its size in bytes.

        Raises
        ------
        KeyStoreError
            If the file is there already or cannot be written, or the store itself is restored and not caught up.
        """
        self._check_caught_up()
        size = back_up(self._connection, output)
        try:
            self.journal.add(BACKUP, {"at": now.isoformat(), "last_order": self.last_order})
        except KeyStoreError:
            output.unlink()
            raise
        return size

    def check_erasure(
        self, number: int, folders: Sequence[Path], progress: Callable[[int], None] | None = None
    ) -> ErasureCheck:
        """Search all files under some folders for the bytes of what an order deleted, as `erasure_check` says."""
        return check_erasure(self._connection, self.keys, self.hashes.key, number, folders, progress)

    def last_backup(self) -> str | None:
        """Return when the last backup was taken, ISO 8601 in UTC; None before the first."""
        taken = self.journal.read(BACKUP)
        return str(taken[-1]["at"]) if taken else None

    def count_unanswered(self) -> int:
        """Return how many orders were applied whose answers the deletion service does not have yet."""
        query = "SELECT count(*) FROM applied_orders WHERE acknowledged = 0"
        return int(self._connection.execute(query).fetchone()[0])

    def mark_acknowledged(self, number: int) -> None:
        """Note that the deletion service has this site's answer to an order."""
        with not_waiting_for_disk(self._connection), self._writing() as connection:
            connection.execute("UPDATE applied_orders SET acknowledged = 1 WHERE number = ?", (number,))

    def _check_turn(self, order: DeletionOrder) -> None:
        site = self.description.site
        if order.site != site:
            raise KeyStoreError(f"order {order.number} is for {order.site}, this key store belongs to {site}")
        expected = self.last_order + 1
        if order.number > expected:
            raise KeyStoreError(f"order {order.number} came before order {expected}; watch the stream from the start")

    @contextmanager
    def _writing(self, generation: int | None = None) -> Iterator[sqlite3.Connection]:
        """Open a write transaction, after checking that the bank is still the one of `generation`."""
        with writing(self._connection):
            if generation is not None and generation != self.generation:
                raise BankChanged("entries were deleted while in use; what was computed from them is dropped")
            if generation is not None:
                self._check_caught_up()
            yield self._connection

    def _read_contents(
        self, table: str, entries: NDArray[np.int64], shape: tuple[int, ...], kind: np.dtype[np.generic]
    ) -> Tensor:
        array = np.empty((len(entries), *shape), dtype=kind)
        for start, part in _blocks(entries):
            query = f"SELECT entry, content FROM {table} JOIN records USING (entry)"  # noqa: S608 (a table's name)
            rows = zip(self.keys.read(part), part.tolist(), self._read_rows(query, part), strict=True)
            for row, (key, entry, sealed) in enumerate(rows, start=start):
                array[row] = np.frombuffer(unseal(key, table, entry, sealed), dtype=kind).reshape(shape)
        return torch.from_numpy(array)

    def _read_rows(self, query: str, entries: NDArray[np.int64]) -> list[bytes]:
        """Return the second column of some entries' rows; raises `BankChanged` if one is not there."""
        self._check_caught_up()
        chosen = f"{query} WHERE entry IN (SELECT value FROM json_each(?))"  # noqa: S608 (callers' constants)
        found = dict(self._connection.execute(chosen, (json.dumps(entries.tolist()),)))
        try:
            return [found[entry] for entry in entries.tolist()]
        except KeyError:
            raise _missing_entry() from None


def _blocks(entries: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield some entries at a time, and the place of the first of them."""
    for start in range(0, len(entries), _BLOCK):
        yield start, entries[start : start + _BLOCK]


def _missing_entry() -> BankChanged:
    return BankChanged("an entry was deleted while the bank was being read; read it again")
