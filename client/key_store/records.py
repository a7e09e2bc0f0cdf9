"""The records of a key store: enrolling them, reading what is held of them, and what training changes of them."""

from __future__ import annotations

import hmac
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.database import StoreDatabase
from fedmunkey.client.key_store.enrolment import Arrivals, add_records, has_tombstone, is_known, is_tombstoned
from fedmunkey.client.key_store.neighbour_rows import read_lists, write_lists
from fedmunkey.client.key_store.on_disk.contents import Enrolled, Tokens, steps_of
from fedmunkey.client.key_store.on_disk.encryption import OVERHEAD, seal, unseal
from fedmunkey.client.key_store.on_disk.facts import Facts, read_facts, unseal_ids
from fedmunkey.client.key_store.on_disk.influence import (
    WHOEVER_WAS_HERE,
    count_influences,
    raise_influence,
    select_weaker,
)
from fedmunkey.client.key_store.on_disk.journal import Kept
from fedmunkey.client.key_store.privacy import PrivacyAccount
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.privacy.guarantees import Influence
from fedmunkey.common.settings.settings import ImagePath

if TYPE_CHECKING:
    from torch import Tensor

    from fedmunkey.common.model.encoders import Encoding
    from fedmunkey.common.model.neighbours import NeighbourLists

_BLOCK = 1024


class HeldRecords:
    """What a store holds; tensors are made where they are asked for only.

    A site's agent needs none, and importing torch would take it seconds. What reads or changes records raises
    `KeyStoreError` if the store is restored and has not caught up. What is given entries returns their rows in the same
    order, and raises `BankChanged` if one of them is not there.
    """

    def __init__(self, database: StoreDatabase, privacy: PrivacyAccount) -> None:
        self._database = database
        self._connection = database.connection
        self._privacy = privacy
        # They are decrypted once: an entry's never change, and its number is never given to another record.
        self._known_facts: dict[int, Facts] = {}

    def enrol(
        self,
        records: Dataset,
        encoding: Encoding,
        secret: FederationSecret,
        *,
        new_consent: frozenset[str] = frozenset(),
    ) -> Enrolled:
        """Add n records with their keys and inputs in one transaction.

        Those of the `train` split become entries of the bank, the others are held out. The secret makes the references
        by which deletion orders will name them; `new_consent` has the ids of records for which consent was given anew
        after a deletion.
        """
        arrivals = Arrivals.of(records, encoding, secret, self._database.description)
        with self._database.writing():
            self._database.check_caught_up()
            return add_records(self._database, arrivals, new_consent)

    # Counting, and asking for single records.

    def count(self, split: Split) -> int:
        """Return how many records of a split there are."""
        found = self._connection.execute("SELECT count(*) FROM records WHERE split = ?", (split.value,)).fetchone()
        return int(found[0])

    def count_used(self, split: Split) -> int:
        """Return how many records of a split there are that nobody has opted out."""
        without = self._database.instructions.opted_out().entries(self._connection, "split = ?", split.value)
        return self.count(split) - len(without)

    def count_opted_out(self, split: Split = Split.TRAIN, *, since: int = 0) -> int:
        """Return how many records of a split are on the opt-out list, by instructions behind a position."""
        named = self._database.instructions.opted_out_since(since)
        return len(named.entries(self._connection, "split = ?", split.value))

    def begin_again(self) -> None:
        """Have whoever has read records begin again, and search the neighbours of all: who is used has changed."""
        with self._database.writing() as connection:
            connection.execute("UPDATE description SET generation = generation + 1")
            connection.execute("UPDATE records SET listed = 0")

    def last_entry(self) -> int:
        """Return the largest number of an entry, of any split; 0 without records."""
        return int(self._connection.execute("SELECT coalesce(max(entry), 0) FROM records").fetchone()[0])

    def count_labels(self) -> dict[int, int]:
        """Return how many entries of each class the bank has."""
        return dict(Counter(facts.label for facts in self._facts("split = 'train'").values()))

    def largest_label(self) -> int | None:
        """Return the largest class index of any record; None without records."""
        return max((facts.label for facts in self._facts().values()), default=None)

    def count_consents(self) -> dict[Consent, int]:
        """Return how many records, of any split, there are with each consent."""
        return dict(
            Counter(Consent.PERMANENT if facts.permanent else Consent.REVOCABLE for facts in self._facts().values())
        )

    def count_trained(self) -> int:
        """Return how many entries have an exemplar token that has been trained."""
        self._database.check_caught_up()
        rows = self._connection.execute("SELECT entry FROM records WHERE split = 'train' ORDER BY entry").fetchall()
        return sum(
            steps_of(content) > 0
            for _, part in _blocks(np.array(rows, dtype=np.int64).reshape(-1))
            for content in self._read_packed(part)
            if content is not None
        )

    def count_influences(self) -> dict[Influence, int]:
        """Return how many records, of any split, there are of each influence."""
        return count_influences(self._connection)

    def holds(self, reference: bytes) -> bool:
        """Return whether a record is here."""
        return is_known(self._connection, self._database.reference_hashes, reference)

    def holds_of(self, reference: bytes, subject: bytes) -> bool:
        """Return whether a record of a subject is here."""
        hashes = self._database.reference_hashes
        query = "SELECT 1 FROM records WHERE record_hash = ? AND subject_hash = ?"
        return (
            self._connection.execute(query, (hashes.record(reference), hashes.subject(subject))).fetchone() is not None
        )

    def has_deleted(self, reference: bytes) -> bool:
        """Return whether an order named a record itself, or deleted it, and it was not enrolled with new consent since.

        A subject of the same name is another matter; `refuses` asks for both.
        """
        return has_tombstone(self._connection, self._database.reference_hashes.record(reference))

    def knows_subject(self, reference: bytes) -> bool:
        """Return whether records of a subject are here, or an order named the subject itself."""
        hash_ = self._database.reference_hashes.subject(reference)
        held = self._connection.execute("SELECT 1 FROM records WHERE subject_hash = ?", (hash_,)).fetchone()
        return held is not None or has_tombstone(self._connection, hash_)

    def refuses(self, record: bytes, subject: bytes) -> bool:
        """Return whether `enrol` leaves a record out, given its reference and its subject's, unless consent is new."""
        return is_tombstoned(self._connection, self._database.reference_hashes, record, subject)

    def is_opted_out(self, record: bytes, subject: bytes) -> bool:
        """Return whether a record, given its reference and its subject's, is on the opt-out list.

        Raises `KeyStoreError` if that cannot be read.
        """
        named, hashes = self._database.instructions.opted_out().hashes, self._database.reference_hashes
        return bool(named) and not named.isdisjoint((hashes.record(record), hashes.subject(subject)))

    def have_deleted_subjects(self, references: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return (n,) whether an order named each of some subjects itself, or may have, as everything was."""
        named = {bytes(row[0]) for row in self._connection.execute("SELECT hash FROM tombstones")}
        if WHOEVER_WAS_HERE in named:
            return np.ones(len(references), dtype=np.bool_)
        subject = self._database.reference_hashes.subject
        return np.array([subject(reference) in named for reference in references], dtype=np.bool_)

    def has_deleted_image(self, image: NDArray[np.uint8]) -> bool:
        """Return whether an image was that of a deleted record, and not enrolled with new consent since."""
        return has_tombstone(self._connection, self._database.reference_hashes.image(image))

    def agrees_with(self, secret: FederationSecret) -> bool:
        """Return whether a secret is the one that made the references here; any is, while there is no record."""
        row = self._connection.execute("SELECT entry, record_hash FROM records LIMIT 1").fetchone()
        if row is None:
            return True
        ((record_id, _),) = self.read_ids(np.array(row[:1]))
        return hmac.compare_digest(self._database.reference_hashes.record(secret.reference(record_id)), row[1])

    # Reading entries.

    def read_entries(self, split: Split) -> tuple[NDArray[np.int64], Tensor]:
        """Return the (n,) entry numbers of a split in order, and their (n,) int64 labels, those opted out left out."""
        import torch

        self._database.check_caught_up()
        found = self._facts("split = ?", split.value)
        without = self._database.instructions.opted_out().entries(self._connection, "split = ?", split.value)
        rows = [(entry, facts.label) for entry, facts in found.items() if entry not in without]
        both = np.array(rows, dtype=np.int64).reshape(len(rows), 2)
        return both[:, 0].copy(), torch.from_numpy(both[:, 1].copy())

    def read_unlisted(self) -> NDArray[np.int64]:
        """Return the entries, of any split, that arrived after neighbour lists were last built, as `read_entries`."""
        rows = self._connection.execute("SELECT entry FROM records WHERE listed = 0 ORDER BY entry").fetchall()
        without = self._database.instructions.opted_out().entries(self._connection, "listed = 0")
        return np.array([entry for (entry,) in rows if entry not in without], dtype=np.int64)

    def read_permanent(self, entries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,) whether the consent of each of some entries is permanent."""
        facts = self._facts("entry IN (SELECT value FROM json_each(?))", json.dumps(entries.tolist()))
        try:
            return np.array([facts[entry].permanent for entry in entries.tolist()], dtype=np.bool_)
        except KeyError:
            raise _missing_entry() from None

    def read_ids(self, entries: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return the record's and the subject's id of each of some entries."""
        sealed = self._read_rows("ids", entries)
        rows = zip(self._database.ciphers.read(entries), entries.tolist(), sealed, strict=True)
        return [unseal_ids(key, entry, content) for key, entry, content in rows]

    def read_keys(self, entries: NDArray[np.int64]) -> Tensor:
        """Return (n, key_size) float32 keys of some entries."""
        return self._read_contents("keys", entries, (self._database.description.key_size,), np.dtype(np.float32))

    def read_inputs(self, entries: NDArray[np.int64]) -> Tensor:
        """Return (n, *input_shape) inputs of some entries."""
        description = self._database.description
        kind = np.dtype(np.uint8 if description.image_path is ImagePath.PATCHES else np.float32)
        return self._read_contents("inputs", entries, description.input_shape, kind)

    def read_tokens(self, entries: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some entries; zeros for those that have not been trained."""
        tokens = Tokens.zeros(len(entries), self._database.description.exemplar_size)
        for start, part in _blocks(entries):
            for row, content in enumerate(self._read_packed(part), start=start):
                if content is not None:
                    tokens.unpack(row, content)
        return tokens

    def kept_for(self) -> str:
        """Return the digest of the shared weights that tokens were kept for; empty if none were."""
        row = self._connection.execute("SELECT digest FROM kept_for").fetchone()
        return "" if row is None else str(row[0])

    def read_kept_tokens(self, entries: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some entries as `keep_tokens` kept them; zeros for those of which there is none."""
        self._database.check_caught_up()
        tokens = Tokens.zeros(len(entries), self._database.description.exemplar_size)
        query = "SELECT entry, content FROM kept_tokens WHERE entry IN (SELECT value FROM json_each(?))"
        for start, part in _blocks(entries):
            found = dict(self._connection.execute(query, (json.dumps(part.tolist()),)))
            for row, (key, entry) in enumerate(
                zip(self._database.ciphers.read(part), part.tolist(), strict=True), start
            ):
                content = found.get(entry, b"")
                if any(content):
                    tokens.unpack(row, unseal(key, "kept_tokens", entry, content))
        return tokens

    def read_neighbours(self, entries: NDArray[np.int64], bank: NDArray[np.int64]) -> NeighbourLists:
        """Return the neighbour lists of some entries as positions in `bank`; both are sorted entry numbers."""
        length = self._database.description.list_length
        return read_lists(self._connection, self._database.secrets.mask_key, length, entries, bank)

    # What is computed from them.

    def write_neighbours(
        self, generation: int, entries: NDArray[np.int64], lists: NeighbourLists, bank: NDArray[np.int64]
    ) -> None:
        """Replace the neighbour lists of some entries, given as positions in `bank`.

        Raises `BankChanged`, having written nothing, if entries were deleted since `generation`.
        """
        with self._database.writing(generation) as connection:
            write_lists(connection, self._database.secrets.mask_key, entries, lists, bank)

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
        entries, tokens
            (n,) entries, and their n rows.
        used : Influence
            What the shared weights may hold of the records that they were trained on; an influence never falls.
        used_entries : ndarray, optional
            (m,) entries that the shared weights were trained on; all of `entries` by default.
        training : int, optional
            The number that `PrivacyAccount.begin` gave; the training counts as spent from here on.

        Raises
        ------
        BankChanged
            If entries were deleted since `generation`, or another process has begun training; nothing is written.
        """
        if len(tokens.offsets) != len(entries):
            raise ValueError(f"{len(tokens.offsets)} tokens for {len(entries)} entries")
        hit(Failpoint.WRITE_BACK_BEFORE_BEGIN)
        with self._database.writing(generation) as connection:
            if training is not None:
                self._privacy.release(training)
            used_entries = entries if used_entries is None else used_entries
            self._note_influence(used_entries, used)
            raise_influence(connection, used_entries, used)
            packed = tokens.pack()
            for _, part in _blocks(entries):
                keys = self._database.ciphers.read(part)
                connection.executemany(
                    "UPDATE tokens SET content = ? WHERE entry = ?",
                    [
                        (seal(key, "tokens", entry, content) if any(content) else bytes(len(content) + OVERHEAD), entry)
                        for key, entry, content in zip(keys, part.tolist(), packed, strict=False)
                    ],
                )
            hit(Failpoint.WRITE_BACK_BEFORE_COMMIT)
        hit(Failpoint.WRITE_BACK_AFTER_COMMIT)

    def keep_tokens(self, generation: int, digest: str, *, trained: bool) -> None:
        """Keep all tokens as they are, in one transaction, for the shared weights of a digest.

        Where none were `trained` with those, zeros are kept. Raises `BankChanged`, having kept nothing, if entries were
        deleted since `generation`.
        """
        entries, _ = self.read_entries(Split.TRAIN)
        write = "INSERT INTO kept_tokens VALUES (?, ?) ON CONFLICT (entry) DO UPDATE SET content = excluded.content"
        with self._database.writing(generation) as connection:
            connection.execute("UPDATE kept_tokens SET content = zeroblob(length(content))")
            for _, part in _blocks(entries) if trained else ():
                rows = zip(self._database.ciphers.read(part), part.tolist(), self._read_packed(part), strict=True)
                kept = [
                    (entry, seal(key, "kept_tokens", entry, content))
                    for key, entry, content in rows
                    if content is not None
                ]
                connection.executemany(write, kept)
            connection.execute("INSERT OR REPLACE INTO kept_for VALUES (1, ?)", (digest,))

    def _facts(self, condition: str = "1", *values: str) -> dict[int, Facts]:
        """Return the facts of records that meet a condition in SQL, by entry in order.

        In a restored store those are left out whose record keys are gone.
        """
        query = f"SELECT entry FROM records WHERE {condition} ORDER BY entry"  # noqa: S608 (callers' constants)
        while True:
            held = [entry for (entry,) in self._connection.execute(query, values).fetchall()]
            missing = np.array([entry for entry in held if entry not in self._known_facts], dtype=np.int64)
            try:
                self._known_facts.update(read_facts(self._connection, self._database.ciphers, missing))
            except BankChanged:
                # Its row is gone by then.
                continue
            return {entry: self._known_facts[entry] for entry in held if entry in self._known_facts}

    def _note_influence(self, entries: NDArray[np.int64], used: Influence) -> None:
        """Write down what weights that are about to leave may hold, so that no restored backup claims less."""
        if used is Influence.NONE or not len(entries):
            return
        permanent_only = int(self.read_permanent(entries).all())
        rising = {(hash_, used.value, 0) for hash_ in select_weaker(self._connection, entries, used)}
        self._database.journal.add_all({Kept.INFLUENCES: [(used.value, permanent_only)], Kept.REMEMBERED: list(rising)})

    def _read_contents(
        self, table: str, entries: NDArray[np.int64], shape: tuple[int, ...], kind: np.dtype[np.generic]
    ) -> Tensor:
        import torch

        array = np.empty((len(entries), *shape), dtype=kind)
        for start, part in _blocks(entries):
            rows = zip(self._database.ciphers.read(part), part.tolist(), self._read_rows(table, part), strict=True)
            for row, (key, entry, sealed) in enumerate(rows, start=start):
                array[row] = np.frombuffer(unseal(key, table, entry, sealed), dtype=kind).reshape(shape)
        return torch.from_numpy(array)

    def _read_packed(self, entries: NDArray[np.int64]) -> Iterator[bytes | None]:
        """Yield the packed token of each of some entries; None for one that has not been trained."""
        sealed = self._read_rows("tokens", entries)
        for key, entry, content in zip(self._database.ciphers.read(entries), entries.tolist(), sealed, strict=True):
            yield unseal(key, "tokens", entry, content) if content != bytes(len(content)) else None

    def _read_rows(self, table: str, entries: NDArray[np.int64]) -> list[bytes]:
        """Return some entries' encrypted contents in a table."""
        self._database.check_caught_up()
        query = (
            f"SELECT entry, content FROM {table} JOIN records USING (entry) "  # noqa: S608 (a table's name)
            "WHERE entry IN (SELECT value FROM json_each(?))"
        )
        found = dict(self._connection.execute(query, (json.dumps(entries.tolist()),)))
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
