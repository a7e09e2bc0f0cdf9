"""Neighbour lists as rows of a key store, one for each neighbour, by entry numbers."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.similarity_masks import mask, unmask
from fedmunkey.common.errors import BankChanged

if TYPE_CHECKING:
    from fedmunkey.common.model.neighbours import NeighbourLists


def read_lists(
    connection: sqlite3.Connection, mask_key: bytes, length: int, entries: NDArray[np.int64], bank: NDArray[np.int64]
) -> NeighbourLists:
    """Return the neighbour lists of some entries as positions in `bank`; both are sorted entry numbers."""
    from fedmunkey.common.model.neighbours import NeighbourLists

    lists = NeighbourLists.empty(len(entries), length)
    if not len(entries):
        return lists
    rows = connection.execute(
        "SELECT entry, neighbour, masked FROM neighbours WHERE entry BETWEEN ? AND ?",
        (int(entries[0]), int(entries[-1])),
    )
    found = np.fromiter(rows, dtype=[("entry", np.int64), ("neighbour", np.int64), ("masked", np.int32)])
    found = found[np.isin(found["entry"], entries) & np.isin(found["neighbour"], bank)]
    similarities = unmask(mask_key, found["entry"], found["neighbour"], found["masked"])
    order = np.lexsort((found["neighbour"], -similarities, found["entry"]))
    found, similarities = found[order], similarities[order]
    row = np.searchsorted(entries, found["entry"])
    place = np.arange(len(row)) - np.searchsorted(row, row)
    lists.indices.numpy()[row, place] = np.searchsorted(bank, found["neighbour"])
    lists.similarities.numpy()[row, place] = similarities
    return lists


def write_lists(
    connection: sqlite3.Connection,
    mask_key: bytes,
    entries: NDArray[np.int64],
    lists: NeighbourLists,
    bank: NDArray[np.int64],
) -> None:
    """Replace the neighbour lists of some entries, given as positions in `bank`, within the caller's transaction.

    Raises `BankChanged` if one of the entries, or of their neighbours, is not there.
    """
    from fedmunkey.common.model.neighbours import NONE

    places = (lists.indices != NONE).numpy()
    sources, targets = np.repeat(entries, places.sum(1)), bank[lists.indices.numpy()[places]]
    masked = mask(mask_key, sources, targets, lists.similarities.numpy()[places])
    numbers = [(entry,) for entry in entries.tolist()]
    connection.executemany("DELETE FROM neighbours WHERE entry = ?", numbers)
    try:
        connection.executemany(
            "INSERT INTO neighbours (entry, neighbour, masked) VALUES (?, ?, ?)",
            zip(sources.tolist(), targets.tolist(), masked.tolist(), strict=True),
        )
    except sqlite3.IntegrityError:
        # A held-out record's deletion leaves the generation as it was.
        raise BankChanged("a record was deleted while its neighbours were being searched") from None
    connection.executemany("UPDATE records SET listed = 1 WHERE entry = ?", numbers)
