"""A digest of all that a site's predictions and training depend on, equal for two key stores in the same state.

Under `exact`, the digest after deletions is that of a store in which the deleted records never were.

It covers what the store was made for and, in the order of their entries, the records: ids, label, split, consent, the
bytes of key and input and, unless the site has promised `exact`, where both follow from these, of exemplar token with
its optimiser state, and the K nearest neighbours with their similarities.

It leaves out what two stores with the same records may differ in without any prediction or training step telling:

- entry numbers and the generation, which count what has come and gone; only the order of entries matters,
- the store's own keys and the entries' secrets, which are random, and hide what they hide under any value,
- neighbours beyond K, which are kept only to spare searches,
- tombstones, applied orders, what training has spent of the patients' privacy, and what shared weights may hold of a
  record: they tell that deletions and training took place, and are there to be kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.neighbour_index import list_arrivals, read_lists
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.neighbours import NONE
from fedmunkey.common.privacy.guarantees import Guarantee

_DOMAIN = b"fedmunkey site state 1"
_ROWS = 4096
_BYTES = 32 * 2**20

_Entries = NDArray[np.int64]


def state_digest(store: KeyStore, neighbours: int) -> str:
    """Return the hexadecimal SHA-256 of a site's state, with K neighbours of each record, having completed lists first.

    Records are read some at a time, so that memory does not grow with their keys, inputs and tokens. Nothing should
    train on the store meanwhile: some tokens would be digested as they were before, others as they are afterwards.
    """

    def digest(_generation: int) -> str:
        digested = hashlib.sha256()
        if not _is_solved(store):
            list_arrivals(store)
        for field in _fields(store, neighbours):
            # The lengths make the fields, and what follows what, readable from the digested bytes again.
            digested.update(_number(len(field)) + field)
        return digested.hexdigest()

    return store.until_unchanged(digest)


def _fields(store: KeyStore, neighbours: int) -> Iterator[bytes]:
    """Yield all that counts, in an order that the fields before fix."""
    yield _DOMAIN
    yield from _description(store)
    described = [(split, *store.records.read_entries(split)) for split in Split]
    entries = np.concatenate([some for _, some, _ in described])
    order = np.argsort(entries)
    labels = np.concatenate([some.numpy() for _, _, some in described])[order]
    splits = np.concatenate([np.full(len(some), split.value) for split, some, _ in described])[order]
    entries = entries[order]
    yield _number(len(entries))
    yield from _records(store, entries, labels, splits)
    for part in _blocks(entries, 4 * store.description.key_size):
        yield from (key.tobytes() for key in store.records.read_keys(part).numpy())
    for part in _blocks(entries, 4 * int(np.prod(store.description.input_shape))):
        yield from (content.tobytes() for content in store.records.read_inputs(part).numpy())
    if _is_solved(store):
        return
    bank = entries[splits == Split.TRAIN.value]
    for part in _blocks(bank, 16 * store.description.exemplar_size):
        yield from store.records.read_tokens(part).pack()
    yield from _neighbours(store, entries, bank, neighbours)


def _is_solved(store: KeyStore) -> bool:
    """Return whether tokens are solved for where they are needed; then the store has none, and no neighbour lists."""
    return store.description.guarantee is Guarantee.EXACT


def _description(store: KeyStore) -> Iterator[bytes]:
    values = dataclasses.asdict(store.description)
    del values["list_length"]
    yield _number(len(values))
    for name, value in values.items():
        yield name.encode()
        yield str(value).encode()


def _records(
    store: KeyStore, entries: _Entries, labels: NDArray[np.int64], splits: NDArray[np.str_]
) -> Iterator[bytes]:
    permanent = store.records.read_permanent(entries)
    for part in _blocks(np.arange(len(entries)), 1):
        ids = store.records.read_ids(entries[part])
        for row, (record_id, subject_id) in zip(part.tolist(), ids, strict=True):
            yield record_id.encode()
            yield subject_id.encode()
            yield _number(int(labels[row]))
            yield str(splits[row]).encode()
            yield b"permanent" if permanent[row] else b"revocable"


def _neighbours(store: KeyStore, entries: _Entries, bank: _Entries, neighbours: int) -> Iterator[bytes]:
    yield _number(neighbours)
    for part in _blocks(entries, 16 * store.description.list_length):
        lists = read_lists(store, part, bank, neighbours)
        indices, similarities = lists.indices[:, :neighbours].numpy(), lists.similarities[:, :neighbours].numpy()
        places = np.unique(indices[indices != NONE])
        ids = store.records.read_ids(bank[places])
        names = {place: record_id for place, (record_id, _) in zip(places.tolist(), ids, strict=True)}
        for found, values in zip(indices.tolist(), similarities, strict=True):
            held = [place for place in found if place != NONE]
            yield _number(len(held))
            for place, similarity in zip(held, values, strict=False):
                yield names[place].encode()
                yield similarity.tobytes()


def _blocks(entries: _Entries, row_bytes: int) -> Iterator[_Entries]:
    """Yield as many entries at a time as memory is meant for."""
    rows = max(1, min(_ROWS, _BYTES // row_bytes))
    for start in range(0, len(entries), rows):
        yield entries[start : start + rows]


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)
