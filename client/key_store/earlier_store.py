"""What a new store takes over from an earlier one of the site, by the journal that it has left."""

from __future__ import annotations

import logging
import sqlite3

from fedmunkey.client.key_store.influence import EVERY_PERMANENT, EVERY_RECORD, ONCE_HELD, bury
from fedmunkey.client.key_store.journal import Journal, Kept
from fedmunkey.client.key_store.restoration import remember
from fedmunkey.common.privacy.guarantees import Influence

logger = logging.getLogger(__name__)


def take_over(connection: sqlite3.Connection, journal: Journal, *, hash_key_lost: bool) -> None:
    """Give an empty store what an earlier store's journal says, within the caller's transaction.

    It has to hear every order again before it is used, if there was one or that cannot be told.
    """
    if hash_key_lost:
        if journal.query("SELECT 1 FROM hash_keys LIMIT 1"):
            logger.warning(
                "%s was written with another master key, so deleted records are known again only after "
                "munkey-client catch-up; if that key is elsewhere, begin again with --master-key",
                journal.path,
            )
        # Which records weights hold cannot be told without it, only of what kind they were.
        every = {0: EVERY_RECORD, 1: EVERY_PERMANENT}
        rows = [(every[permanent], influence, 1) for influence, permanent in journal.read(Kept.INFLUENCES)]
        journal.add(Kept.REMEMBERED, *rows)
    remember(connection, journal, 0)
    for influence, _ in journal.read(Kept.INFLUENCES):
        bury(connection, {ONCE_HELD: Influence(influence)})
    lost = journal.query("SELECT 1 FROM remembered WHERE hash = ?", (EVERY_RECORD,))
    if lost or journal.query("SELECT 1 FROM answers LIMIT 1"):
        connection.execute("UPDATE description SET restored = 1")
