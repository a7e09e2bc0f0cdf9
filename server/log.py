"""The coordinator's transparency log: an RFC 6962 Merkle tree over requests and receipts, with signed heads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine, and_, insert, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from common.deletion import utc_now
from common.errors import InvalidProof, ServiceUnavailable
from common.log_heads import LogHead, LogProof, LogUpdate
from common.merkle import (
    EMPTY_ROOT,
    Node,
    Range,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    range_hash,
    range_nodes,
)
from common.signing.dsse import Envelope
from common.signing.keys import SigningKey
from common.signing.statements import read_envelope
from server.log_tables import LogHeadRow, LogLeafRow, LogNodeRow, LogSizeRow, create_log_tables

MAXIMUM_INCLUSIONS = 100
"""Proofs that one question may ask for."""

_NAMES_AT_ONCE = 500


class LeafKind(StrEnum):
    """What a leaf holds."""

    REQUEST = "request"
    RECEIPT = "receipt"


@dataclass(frozen=True)
class Leaf:
    """One leaf.

    Attributes
    ----------
    kind : LeafKind
        What it holds.
    name : str
        Which one; a second leaf of the same kind and name is not appended.
    content : bytes
        What is hashed.
    """

    kind: LeafKind
    name: str
    content: bytes


class TransparencyLog:
    """The log; safe for threads and, where the database locks rows, for several processes.

    Parameters
    ----------
    engine : Engine
        Of the ledger's database; the log's tables are made if they are missing.
    key : SigningKey
        Signs heads.
    clock : callable
        Returns the time, with a zone.
    """

    def __init__(self, engine: Engine, key: SigningKey, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._key = key
        self._clock = clock
        self._lock = threading.Lock()
        with self._engine.execution_options(write=True).begin() as connection:
            create_log_tables(connection)

    def append(self, leaf: Leaf) -> bytes:
        """Append a leaf and return the content that the log holds under its name: an earlier one, if there is one."""
        return self.extend([leaf])[0]

    def extend(self, leaves: Sequence[Leaf]) -> list[bytes]:
        """Append leaves in one transaction; returns as `append` does."""
        with self._transaction(write=True) as session:
            size = session.scalar(select(LogSizeRow.size).with_for_update()) or 0
            held = _held(session, leaves)
            nodes: dict[Node, bytes] = {}
            rows = []
            for leaf in leaves:
                place = (leaf.kind.value, leaf.name)
                if place in held:
                    continue
                held[place] = leaf.content
                digest = leaf_hash(leaf.content)
                rows.append(
                    {"number": size, "kind": place[0], "name": place[1], "hash": digest, "content": leaf.content}
                )
                self._add_nodes(session, size, digest, nodes)
                size += 1
            if rows:
                session.execute(insert(LogLeafRow), rows)
                session.execute(
                    insert(LogNodeRow),
                    [{"level": level, "position": position, "hash": node} for (level, position), node in nodes.items()],
                )
                session.execute(update(LogSizeRow).values(size=size))
        return [held[leaf.kind.value, leaf.name] for leaf in leaves]

    def content(self, kind: LeafKind, name: str) -> bytes | None:
        """Return a leaf's content, None if there is none of that name."""
        with self._transaction() as session:
            return session.scalar(select(LogLeafRow.content).where(LogLeafRow.kind == kind, LogLeafRow.name == name))

    def size(self) -> int:
        """Return how many leaves there are."""
        with self._transaction() as session:
            return session.scalar(select(LogSizeRow.size)) or 0

    def update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate:
        """Return the head, the proof that it extends an earlier one, and where some leaves stand.

        Parameters
        ----------
        seen_size : int
            Leaves when the caller last saw the log; 0 for never.
        leaves : sequence of bytes
            Hashes of leaves.

        Raises
        ------
        InvalidProof
            If the log is smaller than the caller has seen it, or more than `MAXIMUM_INCLUSIONS` proofs are wanted.
        """
        if len(leaves) > MAXIMUM_INCLUSIONS:
            raise InvalidProof(f"{len(leaves)} proofs at once are too many; ask for at most {MAXIMUM_INCLUSIONS}")
        head = self.head()
        size = LogHead.of(head).size
        if not 0 <= seen_size <= size:
            raise InvalidProof(f"the log has {size} leaves, not the {seen_size} that were seen before")
        with self._transaction() as session:
            found = session.execute(
                select(LogLeafRow.hash, LogLeafRow.number).where(LogLeafRow.hash.in_(leaves), LogLeafRow.number < size)
            )
            numbers = {row.hash: row.number for row in found}
        inclusions = tuple(self.prove(numbers[leaf], size) if leaf in numbers else None for leaf in leaves)
        return LogUpdate(head, self.prove_extension(seen_size, size), inclusions)

    def number(self, kind: LeafKind, name: str) -> int | None:
        """Return a leaf's number, None if there is none of that name."""
        with self._transaction() as session:
            return session.scalar(select(LogLeafRow.number).where(LogLeafRow.kind == kind, LogLeafRow.name == name))

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves."""
        return self._hashes([(0, size)])[0]

    def leaf_hash(self, number: int) -> bytes:
        """Return the hash of a leaf by its number."""
        return self._hashes([(number, number + 1)])[0]

    def head(self) -> Envelope:
        """Return the signed head of the log as it is; the same size always has the same bytes."""
        with self._transaction() as session:
            size = session.scalar(select(LogSizeRow.size)) or 0
            signed = session.scalar(select(LogHeadRow.envelope).where(LogHeadRow.size == size))
        if signed is not None:
            return read_envelope(signed)
        envelope = LogHead(size, self.root(size), self._clock()).sign(self._key)
        with self._transaction(write=True) as session:
            # Another thread may have signed the same size meanwhile; whoever came first has signed it for good.
            signed = session.scalar(select(LogHeadRow.envelope).where(LogHeadRow.size == size))
            if signed is None:
                session.execute(insert(LogHeadRow).values(size=size, envelope=envelope.to_bytes()))
        return envelope if signed is None else read_envelope(signed)

    def prove(self, number: int, size: int) -> LogProof:
        """Return the proof that a leaf is among the first `size`."""
        return LogProof(number, tuple(self._hashes(inclusion_ranges(number, size))))

    def prove_extension(self, first: int, second: int) -> tuple[bytes, ...]:
        """Return the proof that the first `second` leaves extend the first `first`; empty for none or equally many."""
        return tuple(self._hashes(consistency_ranges(first, second))) if 0 < first < second else ()

    def _add_nodes(self, session: Session, number: int, digest: bytes, nodes: dict[Node, bytes]) -> None:
        """Add a leaf's node, and every node that it makes full, to those that are not written yet."""
        level, position = 0, number
        nodes[level, position] = digest
        while position & 1:
            left = nodes.get((level, position - 1)) or session.scalar(
                select(LogNodeRow.hash).where(LogNodeRow.level == level, LogNodeRow.position == position - 1)
            )
            if left is None:
                raise ServiceUnavailable("the log lacks a node; restore the ledger's database from a backup")
            digest = node_hash(left, digest)
            level, position = level + 1, position >> 1
            nodes[level, position] = digest

    def _hashes(self, ranges: Iterable[Range]) -> list[bytes]:
        """Return the roots of some ranges, reading all their nodes at once."""
        ranges = list(ranges)
        nodes = {node for bounds in ranges for node in range_nodes(*bounds)}
        if not nodes:
            return [EMPTY_ROOT for _ in ranges]
        with self._transaction() as session:
            rows = session.execute(
                select(LogNodeRow.level, LogNodeRow.position, LogNodeRow.hash).where(
                    # SQLite finds these by the index, and would read the whole table for a list of pairs.
                    or_(*(and_(LogNodeRow.level == level, LogNodeRow.position == place) for level, place in nodes))
                )
            )
            hashes = {(level, position): digest for level, position, digest in rows}
        if hashes.keys() != nodes:
            raise ServiceUnavailable("the log lacks a node; restore the ledger's database from a backup")
        return [range_hash(bounds, hashes.__getitem__) for bounds in ranges]

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Session]:
        engine = self._engine.execution_options(write=True) if write else self._engine
        if write:
            self._lock.acquire()
        try:
            with Session(engine) as session, session.begin():
                yield session
        except DBAPIError as error:
            raise ServiceUnavailable(f"the transparency log cannot be used: {error.orig}; try again") from None
        finally:
            if write:
                self._lock.release()


def _held(session: Session, leaves: Sequence[Leaf]) -> dict[tuple[str, str], bytes]:
    """Return the contents that the log has under the kinds and names of some leaves."""
    held: dict[tuple[str, str], bytes] = {}
    columns = (LogLeafRow.kind, LogLeafRow.name)
    for first in range(0, len(leaves), _NAMES_AT_ONCE):
        for kind in LeafKind:
            names = [leaf.name for leaf in leaves[first : first + _NAMES_AT_ONCE] if leaf.kind is kind]
            query = select(*columns, LogLeafRow.content).where(
                LogLeafRow.kind == kind.value, LogLeafRow.name.in_(names)
            )
            rows = session.execute(query) if names else ()
            held |= {(row.kind, row.name): row.content for row in rows}
    return held
