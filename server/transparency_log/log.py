"""The coordinator's transparency log: an RFC 6962 Merkle tree over requests and receipts, with signed heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidProof, ServiceUnavailable
from fedmunkey.common.proofs.log_heads import LogHead, LogProof, LogUpdate
from fedmunkey.common.proofs.merkle import (
    EMPTY_ROOT,
    Range,
    consistency_ranges,
    inclusion_ranges,
    range_hash,
    range_nodes,
)
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.server.database.connection import have_to_itself
from fedmunkey.server.database.log_tables import LogHeadRow, LogLeafRow, LogNodeRow, LogSizeRow
from fedmunkey.server.database.pairs import PairQuery
from fedmunkey.server.transparency_log.leaves import (
    LOST_NODE,
    Leaf,
    LeafKind,
    append_leaves,
    read_recalled,
    read_restored,
)

MAXIMUM_INCLUSIONS = 100
"""Proofs that one question may ask for."""

_LEAVES_AT_ONCE = 500

_NODES = PairQuery(
    select(LogNodeRow.level, LogNodeRow.position, LogNodeRow.hash), LogNodeRow.level, LogNodeRow.position
)


class TransparencyLog:
    """The log, in the database of a ledger; safe for threads and for several processes. The key signs its heads.

    The ledger appends what was signed as it writes it down (`server.transparency_log.leaves`).
    """

    def __init__(self, engine: Engine, key: SigningKey, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._key = key
        self._clock = clock

    @property
    def key(self) -> SigningKey:
        """What signs its heads, and what else the coordinator says."""
        return self._key

    def extend(self, leaves: Sequence[Leaf]) -> list[bytes]:
        """Append leaves in one transaction; returns as `append_leaves` does."""
        with self._writing() as connection:
            return append_leaves(connection, leaves)

    def content(self, kind: LeafKind, name: str) -> bytes | None:
        """Return a leaf's content, None if there is none of that name."""
        with self._reading() as connection:
            return connection.scalar(select(LogLeafRow.content).where(LogLeafRow.kind == kind, LogLeafRow.name == name))

    def update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate:
        """Return the head, the proof that it extends one of `seen_size` leaves (0 for none), and where leaves stand.

        Leaves are asked for by their hashes. Raises `InvalidProof` if the log is smaller than the caller has seen it,
        or more than `MAXIMUM_INCLUSIONS` proofs are wanted.
        """
        if len(leaves) > MAXIMUM_INCLUSIONS:
            raise InvalidProof(f"{len(leaves)} proofs at once are too many; ask for at most {MAXIMUM_INCLUSIONS}")
        head = self.head()
        size = LogHead.of(head).size
        if not 0 <= seen_size <= size:
            raise InvalidProof(f"the log has {size} leaves, not the {seen_size} that were seen before")
        with self._reading() as connection:
            found = connection.execute(
                select(LogLeafRow.hash, LogLeafRow.number).where(LogLeafRow.hash.in_(leaves), LogLeafRow.number < size)
            )
            numbers = {row.hash: row.number for row in found}
            restored = read_restored(connection, size)
        found_leaves = [leaf for leaf in leaves if leaf in numbers]
        # All their nodes are read at once, which costs little more than those of one.
        paths = [inclusion_ranges(numbers[leaf], size) for leaf in found_leaves]
        hashes = iter(self._hashes([bounds for path in paths for bounds in path]))
        proofs = {
            leaf: LogProof(numbers[leaf], tuple(islice(hashes, len(path))))
            for leaf, path in zip(found_leaves, paths, strict=True)
        }
        inclusions = tuple(proofs.get(leaf) for leaf in leaves)
        return LogUpdate(head, self.prove_extension(seen_size, size), inclusions, restored)

    def restored(self) -> tuple[Envelope, ...]:
        """Return the statements that the log was restored from a copy, oldest first."""
        with self._reading() as connection:
            return read_restored(connection)

    def recalled(self) -> tuple[Envelope, ...]:
        """Return the receipts that sites have given back for orders that the ledger lost, oldest first."""
        with self._reading() as connection:
            return read_recalled(connection)

    def number(self, kind: LeafKind, name: str) -> int | None:
        """Return a leaf's number, None if there is none of that name."""
        with self._reading() as connection:
            return connection.scalar(select(LogLeafRow.number).where(LogLeafRow.kind == kind, LogLeafRow.name == name))

    def leaves(self, kind: LeafKind, names: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return the numbers and contents of leaves by their names; those that there are not are left out."""
        found: dict[str, tuple[int, bytes]] = {}
        columns = (LogLeafRow.name, LogLeafRow.number, LogLeafRow.content)
        with self._reading() as connection:
            for begin in range(0, len(names), _LEAVES_AT_ONCE):
                chosen = LogLeafRow.name.in_(names[begin : begin + _LEAVES_AT_ONCE])
                for row in connection.execute(select(*columns).where(LogLeafRow.kind == kind, chosen)):
                    found[row.name] = (row.number, row.content)
        return found

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves."""
        return self._hashes([(0, size)])[0]

    def leaf_hash(self, number: int) -> bytes:
        """Return the hash of a leaf by its number."""
        return self._hashes([(number, number + 1)])[0]

    def head(self) -> Envelope:
        """Return the signed head of the log as it is; the same size always has the same bytes."""
        with self._reading() as connection:
            size = connection.scalar(select(LogSizeRow.size)) or 0
            signed = connection.scalar(select(LogHeadRow.envelope).where(LogHeadRow.size == size))
        if signed is not None:
            return read_envelope(signed)
        envelope = LogHead(size, self.root(size), self._clock()).sign(self._key)
        with self._writing() as connection:
            # Another thread may have signed the same size meanwhile; whoever came first has signed it for good.
            signed = connection.scalar(select(LogHeadRow.envelope).where(LogHeadRow.size == size))
            if signed is None:
                connection.execute(insert(LogHeadRow).values(size=size, envelope=envelope.to_bytes()))
        return envelope if signed is None else read_envelope(signed)

    def first_head(self, number: int) -> Envelope:
        """Return the earliest signed head that holds a leaf; the log's present one if none did before."""
        earliest = select(LogHeadRow.envelope).where(LogHeadRow.size > number).order_by(LogHeadRow.size).limit(1)
        with self._reading() as connection:
            signed = connection.scalar(earliest)
        return self.head() if signed is None else read_envelope(signed)

    def prove(self, number: int, size: int) -> LogProof:
        """Return the proof that a leaf is among the first `size`."""
        return LogProof(number, tuple(self._hashes(inclusion_ranges(number, size))))

    def prove_all(self, numbers: Sequence[int], size: int) -> dict[int, LogProof]:
        """Return the proofs that leaves are among the first `size`, by their numbers; nodes are read many at a time."""
        proofs: dict[int, LogProof] = {}
        for begin in range(0, len(numbers), MAXIMUM_INCLUSIONS):
            paths = {number: inclusion_ranges(number, size) for number in numbers[begin : begin + MAXIMUM_INCLUSIONS]}
            hashes = iter(self._hashes([bounds for path in paths.values() for bounds in path]))
            proofs |= {number: LogProof(number, tuple(islice(hashes, len(path)))) for number, path in paths.items()}
        return proofs

    def prove_extension(self, first: int, second: int) -> tuple[bytes, ...]:
        """Return the proof that the first `second` leaves extend the first `first`; empty for none or equally many."""
        return tuple(self._hashes(consistency_ranges(first, second))) if 0 < first < second else ()

    def _hashes(self, ranges: Iterable[Range]) -> list[bytes]:
        """Return the roots of some ranges, reading all their nodes at once."""
        ranges = list(ranges)
        nodes = {node for bounds in ranges for node in range_nodes(*bounds)}
        if not nodes:
            return [EMPTY_ROOT for _ in ranges]
        with self._reading() as connection:
            hashes = {(level, position): digest for level, position, digest in _NODES.rows(connection, nodes)}
        if hashes.keys() != nodes:
            raise ServiceUnavailable(LOST_NODE)
        return [range_hash(bounds, hashes.__getitem__) for bounds in ranges]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _explaining(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        engine = self._engine.execution_options(write=True)
        with _explaining(), engine.connect() as connection, connection.begin():
            have_to_itself(connection)
            yield connection


def head_signer(engine: Engine) -> str | None:
    """Return the id of the key that has signed the last head of the log in a database; None if there is no head."""
    with _explaining(), engine.connect() as connection:
        signed = connection.scalar(select(LogHeadRow.envelope).order_by(LogHeadRow.size.desc()).limit(1))
    return None if signed is None else read_envelope(signed).signatures[0].key_id


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise ServiceUnavailable(f"the transparency log cannot be used: {error.orig}; try again") from None
