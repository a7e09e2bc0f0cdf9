"""Merkle trees of RFC 6962 (and RFC 9162, which has the same tree): hashes, which nodes a proof needs, and checks.

A *range* is the leaves from one number to before another. A *node* (level, position) is the root of the 2**level
leaves from position * 2**level on; a log keeps every node whose leaves are all there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from fedmunkey.common.errors import InvalidProof

Node = tuple[int, int]
Range = tuple[int, int]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves."""


def leaf_hash(content: bytes) -> bytes:
    """Return the hash of a leaf (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def range_nodes(start: int, end: int) -> list[Node]:
    """Return the full nodes, left to right, that a range of a tree's own splitting is made of."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def range_hash(bounds: Range, node: Callable[[Node], bytes]) -> bytes:
    """Return the root of a range, from the hashes of its full nodes."""
    hashes = [node(place) for place in range_nodes(*bounds)]
    if not hashes:
        return EMPTY_ROOT
    root = hashes.pop()
    while hashes:
        root = node_hash(hashes.pop(), root)
    return root


def inclusion_ranges(number: int, size: int) -> list[Range]:
    """Return the ranges whose roots prove that a leaf is in a tree (RFC 6962, section 2.1.1), lowest first."""
    start, end, ranges = 0, size, list[Range]()
    while end - start > 1:
        middle = start + _split(end - start)
        if number < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """Return the ranges whose roots prove that a tree extends a smaller one (RFC 6962, section 2.1.2), lowest first.

    Sizes are 0 < first <= second; equal ones need no proof.
    """
    start, end, whole, ranges = 0, second, True, list[Range]()
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    return ([] if whole else [(start, end)]) + ranges[::-1]


def check_inclusion(leaf: bytes, number: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf's hash is in a tree (RFC 9162, section 2.1.3.2).

    Raises `InvalidProof` if the path does not lead from the leaf, at its number, to the root, or is longer or shorter
    than it must be.
    """
    if not 0 <= number < size:
        raise InvalidProof(f"a log of {size} leaves has no leaf {number}")
    place, last, found = number, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise InvalidProof("an inclusion proof is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise InvalidProof("an inclusion proof does not lead to the root of the log")


def check_consistency(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> None:
    """Check that a tree is an extension of a smaller one (RFC 9162, section 2.1.4.2).

    Raises `InvalidProof` if it is not, or the proof is longer or shorter than it must be.
    """
    if not 0 < first <= second:
        raise InvalidProof(f"a log of {second} leaves does not extend one of {first}")
    if first == second:
        if path or first_root != second_root:
            raise InvalidProof("two logs of the same size differ")
        return
    if not path:
        raise InvalidProof("a consistency proof is empty")
    for given, computed in zip((first_root, second_root), _roots(first, second, path, first_root), strict=True):
        if given != computed:
            raise InvalidProof("a consistency proof does not lead to the roots of both logs")


def _roots(first: int, second: int, path: Sequence[bytes], first_root: bytes) -> Iterator[bytes]:
    # A first tree that is a full one is a node of the second; its root is left out of the proof.
    hashes = list(path) if first & (first - 1) else [first_root, *path]
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise InvalidProof("a consistency proof is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise InvalidProof("a consistency proof is too short")
    yield old
    yield new


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least 2."""
    return 1 << (size - 1).bit_length() - 1
