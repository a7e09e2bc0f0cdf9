"""Reading what a key store holds."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.dataset import Consent, Split
from fedmunkey.client.key_store.contents import Tokens, steps_of
from fedmunkey.client.key_store.encryption import unseal, unseal_identity
from fedmunkey.client.key_store.enrolment import has_tombstone, is_known, is_tombstoned
from fedmunkey.client.key_store.influence import count_influences, count_largest_subject
from fedmunkey.client.key_store.neighbour_rows import read_lists
from fedmunkey.client.key_store.opened import OpenedStore
from fedmunkey.common.errors import BankChanged
from fedmunkey.common.guarantees import Influence
from fedmunkey.common.references import FederationSecret
from fedmunkey.common.settings import ImagePath

if TYPE_CHECKING:
    from torch import Tensor

    from fedmunkey.common.neighbours import NeighbourLists

_BLOCK = 1024


class Holdings(OpenedStore):
    """What can be asked of a key store's records; tensors are made where they are asked for only.

    A site's agent needs none, and importing torch would take it seconds.
    """

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
        """Return the (n,) entry numbers of a split in order, and their (n,) int64 labels.

        Raises
        ------
        KeyStoreError
            If the store is restored and has not caught up, as everything that reads or changes records does.
        """
        import torch

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
        sealed = self._read_rows("SELECT entry, content FROM identities JOIN records USING (entry)", entries)
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
        for start, part in blocks(entries):
            for row, content in enumerate(self._read_packed(part), start=start):
                if content is not None:
                    tokens.unpack(row, content)
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
        self._check_caught_up()
        rows = self._connection.execute("SELECT entry FROM records WHERE split = 'train' ORDER BY entry").fetchall()
        return sum(
            steps_of(content) > 0
            for _, part in blocks(np.array(rows, dtype=np.int64).reshape(-1))
            for content in self._read_packed(part)
            if content is not None
        )

    def largest_subject(self) -> int:
        """Return the most training records that one subject has here; 0 without records."""
        return count_largest_subject(self._connection)

    def count_influences(self) -> dict[Influence, int]:
        """Return how many records, of any split, there are of each influence."""
        return count_influences(self._connection)

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

    def _read_contents(
        self, table: str, entries: NDArray[np.int64], shape: tuple[int, ...], kind: np.dtype[np.generic]
    ) -> Tensor:
        import torch

        array = np.empty((len(entries), *shape), dtype=kind)
        for start, part in blocks(entries):
            query = f"SELECT entry, content FROM {table} JOIN records USING (entry)"  # noqa: S608 (a table's name)
            rows = zip(self.keys.read(part), part.tolist(), self._read_rows(query, part), strict=True)
            for row, (key, entry, sealed) in enumerate(rows, start=start):
                array[row] = np.frombuffer(unseal(key, table, entry, sealed), dtype=kind).reshape(shape)
        return torch.from_numpy(array)

    def _read_packed(self, entries: NDArray[np.int64]) -> Iterator[bytes | None]:
        """Yield the packed token of each of some entries; None for one that has not been trained."""
        sealed = self._read_rows("SELECT entry, content FROM tokens JOIN records USING (entry)", entries)
        for key, entry, content in zip(self.keys.read(entries), entries.tolist(), sealed, strict=True):
            yield unseal(key, "tokens", entry, content) if content != bytes(len(content)) else None

    def _read_rows(self, query: str, entries: NDArray[np.int64]) -> list[bytes]:
        """Return the second column of some entries' rows; raises `BankChanged` if one is not there."""
        self._check_caught_up()
        chosen = f"{query} WHERE entry IN (SELECT value FROM json_each(?))"  # noqa: S608 (callers' constants)
        found = dict(self._connection.execute(chosen, (json.dumps(entries.tolist()),)))
        try:
            return [found[entry] for entry in entries.tolist()]
        except KeyError:
            raise _missing_entry() from None


def blocks(entries: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield some entries at a time, and the place of the first of them."""
    for start in range(0, len(entries), _BLOCK):
        yield start, entries[start : start + _BLOCK]


def _missing_entry() -> BankChanged:
    return BankChanged("an entry was deleted while the bank was being read; read it again")
