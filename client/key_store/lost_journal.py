"""What is done where the journal is lost: it is written again from the store, or the worst is assumed, aloud."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from client.key_store.journal import ANSWER, ANSWER_COLUMNS, INFLUENCE, TRAINING, TRAINING_COLUMNS, Journal, Line
from client.key_store.store_secrets import StoreSecrets, read_secrets
from common.deletion import SiteState
from common.errors import KeyStoreError
from common.guarantees import Guarantee, Influence

logger = logging.getLogger(__name__)

_KEYS = {ANSWER: "number", TRAINING: "id"}
"""What tells the lines of a kind apart."""

_WITHOUT = (
    "put it back from its disk's mirror, or restore with --without-journal, which counts the whole privacy budget as "
    "spent and every record as one that weights may hold"
)


def write_again(connection: sqlite3.Connection, journal: Journal) -> None:
    """Write a missing journal from the store that it lies beside, which knows the same unless it is a backup.

    Raises
    ------
    KeyStoreError
        If it cannot be written.
    """
    # Another process may be as quick.
    with suppress(FileExistsError):
        journal.create(_known(connection))
        logger.warning("the journal %s was missing; it was written again from the key store", journal.path)


def find_journal(backup: sqlite3.Connection, own: StoreSecrets, store: Path) -> Journal:
    """Return the journal beside a store that a backup is to replace, having checked that it is whole.

    Parameters
    ----------
    backup : sqlite3.Connection
        The backup.
    own : StoreSecrets
        The backup's.
    store : Path
        The store's file. If its journal is missing, it is written again from the store, where that can be read.

    Raises
    ------
    KeyStoreError
        If there is none, or it lacks what the backup knows.
    """
    journal = Journal.of(store)
    if not journal.path.exists() and store.exists():
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as live:
            if read_secrets(live, store).reference_hashes == own.reference_hashes:
                write_again(live, journal)
    if not journal.path.exists():
        raise KeyStoreError(
            f"the journal {journal.path} is missing, and with it what was spent of the patients' privacy since the "
            f"backup; {_WITHOUT}"
        )
    if lost := _lost(backup, journal):
        first = lost[0]
        raise KeyStoreError(
            f"the journal {journal.path} is not whole: the backup knows {len(lost)} lines that it lacks "
            f"({first['kind']} {first[_KEYS[str(first['kind'])]]} is the first); {_WITHOUT}"
        )
    return journal


def assume_the_worst(backup: sqlite3.Connection, own: StoreSecrets, store: Path) -> Journal:
    """Begin a new journal, or go on with an incomplete one, that claims nothing for the records of a backup.

    Raises
    ------
    KeyStoreError
        If the journal is there and whole, so that nothing needs to be assumed, or cannot be written.
    """
    journal = Journal.of(store)
    try:
        find_journal(backup, own, store)
    except KeyStoreError:
        with suppress(FileExistsError):
            journal.create()
        for line in _lost(backup, journal):
            journal.add(str(line["kind"]), line)
    else:
        raise KeyStoreError(f"the journal {journal.path} is whole; leave --without-journal out")
    journal.add(INFLUENCE, {"influence": Influence.UNBOUNDED.value, "permanent_only": 0})
    if own.description.guarantee is Guarantee.CERTIFIED:
        (last,) = backup.execute("SELECT coalesce(max(id), 0) FROM noisy_training").fetchone()
        last = max([last, *(int(str(line["id"])) for line in journal.read(TRAINING))])
        # A step without noise: from here on no epsilon bounds what was told.
        journal.add(TRAINING, dict(zip(TRAINING_COLUMNS, (last + 1, 0, 1, 1.0, 0.0), strict=True)))
    return journal


def _lost(backup: sqlite3.Connection, journal: Journal) -> list[Line]:
    """Return the lines that a backup knows and a journal lacks."""
    kept = {(kind, line[key]) for kind, key in _KEYS.items() for line in journal.read(kind)}
    return [
        line
        for line in _known(backup)
        if (key := _KEYS.get(str(line["kind"]))) is not None and (line["kind"], line[key]) not in kept
    ]


def _known(connection: sqlite3.Connection) -> Iterator[Line]:
    """Yield the lines of a journal that a store can tell."""
    columns = ", ".join(ANSWER_COLUMNS)
    answers = (
        f"SELECT {columns} FROM applied_orders WHERE finished = 1 AND state <> '{SiteState.REFUSED}' "  # noqa: S608
        f"UNION SELECT {columns} FROM remembered_answers ORDER BY number"
    )
    for row in connection.execute(answers).fetchall():
        yield {"kind": ANSWER, **dict(zip(ANSWER_COLUMNS, row, strict=True))}
    trainings = f"SELECT {', '.join(TRAINING_COLUMNS)} FROM noisy_training WHERE released = 1 ORDER BY id"  # noqa: S608
    for row in connection.execute(trainings).fetchall():
        yield {"kind": TRAINING, **dict(zip(TRAINING_COLUMNS, row, strict=True))}
    influences = (
        "SELECT influence, min(consent = 'permanent') FROM records WHERE split = 'train' AND influence <> 'none' "
        "GROUP BY influence"
    )
    for influence, permanent_only in connection.execute(influences).fetchall():
        yield {"kind": INFLUENCE, "influence": influence, "permanent_only": permanent_only}
