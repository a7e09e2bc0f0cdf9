"""What a site knows of holds and of the opt-out list: in its journal, sealed, so that no copy of it names anybody.

A list that cannot be read whole counts as one that names everybody: nothing is learned, enrolled or exported then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.reference_hashes import ReferenceHashes
from fedmunkey.common.deletions.words import Records, Subject, Target, WholeSite
from fedmunkey.common.errors import InvalidProof, KeyStoreError
from fedmunkey.common.proofs.governance.instructions import Instruction, InstructionKind
from fedmunkey.common.proofs.governance.standing import Standing

_SEALED_AS = "instructions"
_EVERYBODY = (
    "so everybody counts as opted out, and nothing is learned, enrolled or exported; run munkey-client catch-up, which "
    "asks the coordinator for the list again"
)


@dataclass(frozen=True)
class Named:
    """The hashes of the records and the subjects that instructions of one kind name."""

    hashes: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def entries(self, connection: sqlite3.Connection, condition: str = "1", *values: str) -> set[int]:
        """Return the entries of the store that are named, among those that meet a condition in SQL."""
        if not self.hashes:
            return set()
        query = f"SELECT entry, record_hash, subject_hash FROM records WHERE {condition}"  # noqa: S608 (constants)
        rows = connection.execute(query, values)
        return {entry for entry, record, subject in rows if record in self.hashes or subject in self.hashes}


class KeptInstructions:
    """The instructions that a site believes; several processes may have the journal open.

    What reads them raises `KeyStoreError` if they cannot be read, or fewer are there than the store has known.
    """

    def __init__(
        self, connection: sqlite3.Connection, journal: Journal, cipher: bytes, hashes: ReferenceHashes
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._cipher = cipher
        self._hashes = hashes
        self._read: tuple[tuple[int, int], Standing, dict[InstructionKind, Named]] | None = None

    def last(self) -> tuple[int, bytes]:
        """Return the number under which the ledger had the last one that was believed, and its digest; 0 for none."""
        rows = self._journal.query("SELECT number, digest FROM instructions ORDER BY number DESC, rowid DESC LIMIT 1")
        return (int(rows[0][0]), bytes(rows[0][1])) if rows else (0, b"")

    def position(self) -> int:
        """Return how many instructions the site knows; what is made after it honours these."""
        return int(self._journal.query("SELECT coalesce(max(rowid), 0) FROM instructions")[0][0])

    def is_whole(self) -> bool:
        """Return whether all can be read that the store has known."""
        try:
            self.standing()
        except KeyStoreError:
            return False
        return True

    def standing(self) -> Standing:
        """Return the instructions that stand."""
        return self._known()[1]

    def opted_out(self) -> Named:
        """Return what the opt-out list names."""
        return self._known()[2][InstructionKind.OPT_OUT]

    def opted_out_since(self, position: int) -> Named:
        """Return what the opt-out list names by instructions that came behind a position."""
        standing = self.standing()
        rows = self._journal.query("SELECT digest FROM instructions WHERE rowid > ?", (position,))
        later = {bytes(digest) for (digest,) in rows}
        found = (one for one in standing.in_force(InstructionKind.OPT_OUT) if one.digest in later)
        return Named(frozenset(hash_ for one in found for hash_ in self._hashed(one)))

    def holds_on(self, target: Target) -> tuple[Instruction, ...]:
        """Return the holds in force on anything that a target would erase here, or names."""
        standing = self.standing()
        holds = standing.in_force(InstructionKind.HOLD)
        if not holds:
            return ()
        column = {Records: "record_hash", Subject: "subject_hash"}.get(type(target), "")
        named = set(self._hashes.of_target(target))
        rows = self._connection.execute("SELECT record_hash, subject_hash FROM records").fetchall()
        if not isinstance(target, WholeSite):
            place = 0 if column == "record_hash" else 1
            rows = [row for row in rows if row[place] in named]
        touched = named | {hash_ for row in rows for hash_ in row}
        return tuple(hold for hold in holds if not touched.isdisjoint(self._hashed(hold)))

    def add(self, instructions: Sequence[tuple[int, Instruction]], *, all_of_them: bool = False) -> None:
        """Keep instructions with their numbers in the ledger, on the disk; those that are kept already stay.

        With `all_of_them` these are all that the ledger has: what could not be read, or was lost, is made good by them.
        """
        rows = [(one.digest, number, self._seal(one)) for number, one in instructions]
        keep = "INSERT INTO instructions (digest, number, sealed) VALUES (?, ?, ?) ON CONFLICT (digest) DO "
        again = "UPDATE SET number = excluded.number, sealed = excluded.sealed"
        with self._journal.writing() as connection:
            connection.executemany(keep + (again if all_of_them else "NOTHING"), rows)
            ((count,),) = connection.execute("SELECT count(*) FROM instructions").fetchall()
        self._read = None
        self._note(count, whole=all_of_them)

    def _note(self, count: int, *, whole: bool) -> None:
        known = "excluded.known" if whole else "max(known, excluded.known)"
        self._connection.execute(
            f"INSERT INTO instructions_known VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET known = {known}",  # noqa: S608
            (count,),
        )

    def _known(self) -> tuple[tuple[int, int], Standing, dict[InstructionKind, Named]]:
        ((count, last),) = self._journal.query("SELECT count(*), coalesce(max(rowid), 0) FROM instructions")
        ((known,),) = self._connection.execute("SELECT coalesce(max(known), 0) FROM instructions_known").fetchall()
        if count < known:
            raise KeyStoreError(f"of {known} holds and opt-outs the site's journal has {count} only, {_EVERYBODY}")
        if self._read is None or self._read[0] != (count, last):
            standing = Standing.of(self._opened())
            named = {
                kind: Named(frozenset(hash_ for one in standing.in_force(kind) for hash_ in self._hashed(one)))
                for kind in (InstructionKind.HOLD, InstructionKind.OPT_OUT)
            }
            self._read = ((count, last), standing, named)
        return self._read

    def _opened(self) -> list[Instruction]:
        rows = self._journal.query("SELECT digest, sealed FROM instructions ORDER BY rowid")
        opened = []
        for digest, sealed in rows:
            try:
                one = Instruction.parse(unseal(self._cipher, _SEALED_AS, _place(digest), sealed))
            except (KeyStoreError, InvalidProof):
                one = None
            if one is None or one.digest != digest:
                raise KeyStoreError(f"a hold or an opt-out in the site's journal cannot be read, {_EVERYBODY}")
            opened.append(one)
        return opened

    def _seal(self, one: Instruction) -> bytes:
        return seal(self._cipher, _SEALED_AS, _place(one.digest), one.to_bytes())

    def _hashed(self, one: Instruction) -> list[bytes]:
        return [] if one.target is None else self._hashes.of_target(one.target)


def _place(digest: bytes) -> int:
    """Return the number that a sealed instruction is bound to."""
    return int.from_bytes(digest[:7], "little")
