"""Leaves of the transparency log, and how they are appended: in the transaction that writes what they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, bindparam, insert, select, update

from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.common.proofs.log_heads import (
    block_leaf,
    card_leaf,
    instruction_leaf,
    receipt_leaf,
    request_leaf,
    restored_leaf,
)
from fedmunkey.common.proofs.merkle import Node, leaf_hash, node_hash
from fedmunkey.common.proofs.signing.canonical import parse_canonical, take
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import envelope_of
from fedmunkey.server.database.log_tables import LogLeafRow, LogNodeRow, LogSizeRow
from fedmunkey.server.database.pairs import AmongQuery

LOST_NODE = "the log lacks a node; restore the ledger's database from a backup"

_SIZE = select(LogSizeRow.size)
_SET_SIZE = update(LogSizeRow).values(size=bindparam("new_size"))
_NAMED = AmongQuery(
    select(LogLeafRow.kind, LogLeafRow.name, LogLeafRow.content).where(LogLeafRow.kind == bindparam("of_kind")),
    LogLeafRow.name,
)
_NODE = select(LogNodeRow.hash).where(
    LogNodeRow.level == bindparam("level"), LogNodeRow.position == bindparam("position")
)


class LeafKind(StrEnum):
    """What a leaf holds."""

    REQUEST = "request"
    RECEIPT = "receipt"
    RESTORED = "restored"
    RECALLED = "recalled"
    RELEASE = "release"
    CARD = "card"
    INSTRUCTION = "standing"
    BLOCK = "block"


@dataclass(frozen=True)
class Leaf:
    """What is hashed, of which kind and name; a second leaf of the same kind and name is not appended."""

    kind: LeafKind
    name: str
    content: bytes


def leaf_of_request(request_id: str, signature: bytes, sites: Sequence[str]) -> Leaf:
    """Return the leaf of a request that bears a checked signature, and of the sites that it is sent to."""
    return Leaf(LeafKind.REQUEST, request_id, request_leaf(signature, sorted(sites)))


def leaf_of_receipt(site: str, number: int, receipt: bytes) -> Leaf:
    """Return the leaf of a site's checked receipt for an order."""
    return Leaf(LeafKind.RECEIPT, receipt_name(site, number), receipt_leaf(receipt))


def leaf_of_restored(envelope: Envelope) -> Leaf:
    """Return the leaf of a statement that the log was restored from a copy."""
    return Leaf(LeafKind.RESTORED, hashlib.sha256(envelope.payload).hexdigest(), restored_leaf(envelope.to_bytes()))


def leaf_of_release(number: int, content: bytes) -> Leaf:
    """Return the leaf of released weights, by their number; the content is a `ReleaseNote`'s."""
    return Leaf(LeafKind.RELEASE, str(number), content)


def leaf_of_card(digest: str, envelope: Envelope) -> Leaf:
    """Return the leaf of a version of the federation card, by its digest."""
    return Leaf(LeafKind.CARD, digest, card_leaf(envelope.to_bytes()))


def leaf_of_instruction(digest: bytes, envelope: Envelope) -> Leaf:
    """Return the leaf of a standing instruction, by its digest; what it names is not in it."""
    return Leaf(LeafKind.INSTRUCTION, digest.hex(), instruction_leaf(envelope.to_bytes()))


def leaf_of_block(envelope: Envelope) -> Leaf:
    """Return the leaf of the receipt of a block."""
    return Leaf(LeafKind.BLOCK, hashlib.sha256(envelope.payload).hexdigest(), block_leaf(envelope.to_bytes()))


def leaf_of_recalled(receipt: bytes) -> Leaf:
    """Return the leaf of a receipt for an order that the ledger has lost: the one that it had before."""
    return Leaf(LeafKind.RECALLED, hashlib.sha256(receipt).hexdigest(), receipt_leaf(receipt))


def read_recalled(connection: Connection) -> tuple[Envelope, ...]:
    """Return the receipts that sites have given back, oldest first."""
    return _read_envelopes(connection, LeafKind.RECALLED)


def read_restored(connection: Connection, size: int | None = None) -> tuple[Envelope, ...]:
    """Return the statements that the log was restored, oldest first; of the first `size` leaves if that is given."""
    return _read_envelopes(connection, LeafKind.RESTORED, size)


def _read_envelopes(connection: Connection, kind: LeafKind, size: int | None = None) -> tuple[Envelope, ...]:
    query = select(LogLeafRow.content).where(LogLeafRow.kind == kind.value).order_by(LogLeafRow.number)
    if size is not None:
        query = query.where(LogLeafRow.number < size)
    documents = [parse_canonical(content, "a leaf of the log") for content in connection.scalars(query)]
    return tuple(envelope_of(take(document, "a leaf", kind=str, envelope=dict)[1]) for document in documents)


def receipt_name(site: str, number: int) -> str:
    """Return the name under which the log has a site's receipt for an order."""
    return f"{site}/{number}"


def append_leaves(connection: Connection, leaves: Sequence[Leaf]) -> list[bytes]:
    """Append leaves and return the contents that the log holds under their names: earlier ones, where there are any.

    The transaction has the database to itself. Raises `ServiceUnavailable` if the log has lost a part of its tree.
    """
    if not leaves:
        return []
    size = connection.scalar(_SIZE) or 0
    held = _held(connection, leaves)
    nodes: dict[Node, bytes] = {}
    rows = []
    for leaf in leaves:
        place = (leaf.kind.value, leaf.name)
        if place in held:
            continue
        held[place] = leaf.content
        digest = leaf_hash(leaf.content)
        rows.append({"number": size, "kind": place[0], "name": place[1], "hash": digest, "content": leaf.content})
        _add_nodes(connection, size, digest, nodes)
        size += 1
    if rows:
        connection.execute(insert(LogLeafRow), rows)
        connection.execute(
            insert(LogNodeRow),
            [{"level": level, "position": position, "hash": node} for (level, position), node in nodes.items()],
        )
        connection.execute(_SET_SIZE, {"new_size": size})
    return [held[leaf.kind.value, leaf.name] for leaf in leaves]


def _held(connection: Connection, leaves: Sequence[Leaf]) -> dict[tuple[str, str], bytes]:
    """Return the contents that the log has under the kinds and names of some leaves."""
    held: dict[tuple[str, str], bytes] = {}
    for kind in LeafKind:
        names = [leaf.name for leaf in leaves if leaf.kind is kind]
        held |= {(row.kind, row.name): row.content for row in _NAMED.rows(connection, names, of_kind=kind.value)}
    return held


def _add_nodes(connection: Connection, number: int, digest: bytes, nodes: dict[Node, bytes]) -> None:
    """Add a leaf's node, and every node that it makes full, to those that are not written yet."""
    level, position = 0, number
    nodes[level, position] = digest
    while position & 1:
        left = nodes.get((level, position - 1)) or connection.scalar(_NODE, {"level": level, "position": position - 1})
        if left is None:
            raise ServiceUnavailable(LOST_NODE)
        digest = node_hash(left, digest)
        level, position = level + 1, position >> 1
        nodes[level, position] = digest
