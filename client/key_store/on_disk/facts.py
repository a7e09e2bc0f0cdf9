"""What a record's row does not say, since a backup holds it: its label and consent, encrypted with its ids."""

from __future__ import annotations

import json
import sqlite3
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.record_ciphers import RecordCiphers

_BLOCK = 1024


class Facts(NamedTuple):
    """A record's label, and whether its consent is permanent."""

    label: int
    permanent: bool


def seal_facts(key: bytes, entry: int, record_id: str, subject_id: str, facts: Facts) -> bytes:
    """Encrypt a record's and its subject's id with its facts under the record's key."""
    return seal(key, "ids", entry, json.dumps([record_id, subject_id, *facts]).encode())


def unseal_ids(key: bytes, entry: int, sealed: bytes) -> tuple[str, str]:
    """Return the record's and the subject's id; raises `KeyStoreError` as `unseal`."""
    record_id, subject_id, *_ = json.loads(unseal(key, "ids", entry, sealed))
    return record_id, subject_id


def read_facts(connection: sqlite3.Connection, ciphers: RecordCiphers, entries: NDArray[np.int64]) -> dict[int, Facts]:
    """Return the facts of some entries, without those whose record keys are gone.

    Raises `BankChanged` if one is destroyed meanwhile, and `KeyStoreError` if one is damaged.
    """
    facts = {}
    query = "SELECT entry, content FROM ids WHERE entry IN (SELECT value FROM json_each(?))"
    for start in range(0, len(entries), _BLOCK):
        part = entries[start : start + _BLOCK]
        part = part[[any(slot) for slot in ciphers.read_slots(part)]]
        sealed = dict(connection.execute(query, (json.dumps(part.tolist()),)))
        for entry, key in zip(part.tolist(), ciphers.read(part) if len(part) else [], strict=True):
            _, _, label, permanent = json.loads(unseal(key, "ids", entry, sealed[entry]))
            facts[entry] = Facts(label, permanent)
    return facts
