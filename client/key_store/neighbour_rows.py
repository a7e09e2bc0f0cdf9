"""Neighbour lists as rows of a key store, one for each neighbour, by entry numbers."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import BankChanged

if TYPE_CHECKING:
    from fedmunkey.common.model.neighbours import NeighbourLists


def read_lists(
    connection: sqlite3.Connection, length: int, entries: NDArray[np.int64], bank: NDArray[np.int64]
) -> NeighbourLists:
    """Return the neighbour lists of some entries as positions in `bank`; both are sorted entry numbers."""
    from fedmunkey.common.model.neighbours import NeighbourLists

    lists = NeighbourLists.empty(len(entries), length)
    if not len(entries):
        return lists
    rows = connection.execute(
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


def write_lists(
    connection: sqlite3.Connection, entries: NDArray[np.int64], lists: NeighbourLists, bank: NDArray[np.int64]
) -> None:
    """Replace the neighbour lists of some entries, given as positions in `bank`, within the caller's transaction.

    Raises `BankChanged` if one of the entries, or of their neighbours, is not there.
    """
    from fedmunkey.common.model.neighbours import NONE

    places = (lists.indices != NONE).numpy()
    sources = np.repeat(entries, places.sum(1)).tolist()
    targets = bank[lists.indices.numpy()[places]].tolist()
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
