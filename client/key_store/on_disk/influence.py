"""What shared weights that left the site may hold of each record: it rises with training and never falls."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Influence

EVERY_RECORD, EVERY_PERMANENT, ONCE_HELD, WHOEVER_WAS_HERE = (bytes([number]) * 32 for number in range(4))
"""Instead of hashes, where it cannot be told of which records weights hold something: all, or those given for good.

The third stands for what an earlier store of the site has held and this one may not hold, the fourth, a tombstone, for
what the whole site has had to forget and cannot name.
"""

_TOGETHER = 500
"""How many hashes one query names; SQLite has a limit to it."""


def raise_influence(connection: sqlite3.Connection, entries: NDArray[np.int64], influence: Influence) -> None:
    """Give some entries at least an influence, within the caller's transaction."""
    if influence is Influence.NONE or not len(entries):
        return
    # The numbers are one value, so that this is one statement: one for each entry takes several times as long.
    connection.execute(
        f"UPDATE records SET influence = ? WHERE influence IN {_weaker(influence)} "  # noqa: S608 (constants)
        "AND entry IN (SELECT value FROM json_each(?))",
        (influence.value, json.dumps(entries.tolist())),
    )


def raise_influence_everywhere(connection: sqlite3.Connection, influence: Influence, but: Iterable[int] = ()) -> None:
    """Give all training records but some entries at least an influence."""
    connection.execute(
        f"UPDATE records SET influence = ? WHERE influence IN {_weaker(influence)} "  # noqa: S608 (constants)
        "AND split = 'train' AND entry NOT IN (SELECT value FROM json_each(?))",
        (influence.value, json.dumps(list(but))),
    )


def bury(connection: sqlite3.Connection, influences: Mapping[bytes, Influence]) -> None:
    """Leave tombstones that remember influences, within the caller's transaction; of two the stronger is kept."""
    for influence in set(influences.values()):
        stronger = f"influence = excluded.influence WHERE influence IN {_weaker(influence)}"
        insert = f"INSERT INTO tombstones VALUES (?, ?) ON CONFLICT (hash) DO UPDATE SET {stronger}"  # noqa: S608
        hashes = sorted(hash_ for hash_, found in influences.items() if found is influence)
        connection.executemany(insert, [(hash_, influence.value) for hash_ in hashes])


def lift(connection: sqlite3.Connection, hash_: bytes) -> Influence:
    """Remove a record's tombstone, within the caller's transaction, and return the influence that it remembered.

    The tombstones of its subject and of its subject's other records stay.
    """
    found = connection.execute("DELETE FROM tombstones WHERE hash = ? RETURNING influence", (hash_,)).fetchone()
    return Influence(found[0]) if found else Influence.NONE


def recall(connection: sqlite3.Connection, hashes: Sequence[bytes]) -> set[Influence]:
    """Return the influences that some tombstones remember."""
    return _recall(lambda query, values: connection.execute(query, values).fetchall(), "tombstones", hashes)


def recall_kept(journal: Journal, hashes: Sequence[bytes]) -> set[Influence]:
    """Return what a journal says of hashes: also of records that a restored or newly made store does not hold."""
    return _recall(journal.query, "remembered", hashes)


def _recall(
    query: Callable[[str, Sequence[bytes]], list[tuple[Any, ...]]], table: str, hashes: Sequence[bytes]
) -> set[Influence]:
    """Return what a table says of hashes, some hundred of them with one query."""
    found: set[Influence] = set()
    for first in range(0, len(hashes), _TOGETHER):
        part = hashes[first : first + _TOGETHER]
        marks = ", ".join("?" for _ in part)
        rows = query(f"SELECT DISTINCT influence FROM {table} WHERE hash IN ({marks})", part)  # noqa: S608 (a table)
        found.update(Influence(influence) for (influence,) in rows)
    return found


def recall_all(connection: sqlite3.Connection, journal: Journal, named: Sequence[bytes]) -> set[Influence]:
    """Return what weights may hold of what an order names, here or not; nothing named is the whole site."""
    # A store may be younger than the weights.
    found = recall(connection, [*named, EVERY_RECORD, EVERY_PERMANENT, *([] if named else [ONCE_HELD])])
    try:
        return found | recall_kept(journal, named)
    except KeyStoreError:
        # A deletion does not wait for a journal that is lost meanwhile, but claims nothing.
        return {Influence.UNBOUNDED}


def select_weaker(connection: sqlite3.Connection, entries: NDArray[np.int64], influence: Influence) -> list[bytes]:
    """Return the hashes by which entries of a weaker influence are known: the record's, image's and subject's."""
    rows = connection.execute(
        f"SELECT record_hash, image_hash, subject_hash FROM records WHERE influence IN {_weaker(influence)} "  # noqa: S608
        "AND entry IN (SELECT value FROM json_each(?))",
        (json.dumps(entries.tolist()),),
    )
    return [hash_ for row in rows.fetchall() for hash_ in row]


def count_influences(connection: sqlite3.Connection) -> dict[Influence, int]:
    """Return how many records, of any split, there are of each influence."""
    rows = connection.execute("SELECT influence, count(*) FROM records GROUP BY influence")
    return {Influence(influence): count for influence, count in rows.fetchall()}


def count_largest_subject(connection: sqlite3.Connection, subjects: Iterable[bytes] | None = None) -> int:
    """Return the most records that training uses, or has used, of one of some subjects by hash, or of any."""
    trained = "SELECT count(*) AS trained FROM records WHERE (split = 'train' OR influence <> 'none')"
    if subjects is None:
        query = f"SELECT max(trained) FROM ({trained} GROUP BY subject_hash)"  # noqa: S608 (constants)
        return connection.execute(query).fetchone()[0] or 0
    counts = (connection.execute(f"{trained} AND subject_hash = ?", (subject,)).fetchone()[0] for subject in subjects)
    return max(counts, default=0)


def _weaker(influence: Influence) -> str:
    """Return the weaker influences as a list in SQL."""
    ordered = list(Influence)
    return "(" + ", ".join(f"'{weaker}'" for weaker in ordered[: ordered.index(influence)]) + ")"
