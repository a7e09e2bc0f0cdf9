"""The tree against the test vectors of certificate-transparency (`merkle_tree_test.cc`, the 8 leaves), and itself."""

from __future__ import annotations

import random

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.merkle import (
    EMPTY_ROOT,
    Node,
    check_consistency,
    check_inclusion,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    range_hash,
    range_nodes,
)

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
# Of every hash the first 16 digits.
ROOTS = [
    "6e340b9cffb37a98", "fac54203e7cc696c", "aeb6bcfe274b70a1", "d37ee418976dd957",
    "4e3bbb1f7b478dcf", "76e67dadbcdf1e10", "ddb89be403809e32", "5dc9da79a70659a9",
]  # fmt: skip
INCLUSIONS = {
    (0, 8): ["96a296d224f285c6", "5f083f0a1a33ca07", "6b47aaf29ee3c2af"],
    (5, 8): ["bc1a0643b12e4d2d", "ca854ea128ed050b", "d37ee418976dd957"],
}
CONSISTENCIES = {
    (1, 1): [],
    (1, 8): ["96a296d224f285c6", "5f083f0a1a33ca07", "6b47aaf29ee3c2af"],
    (2, 5): ["5f083f0a1a33ca07", "bc1a0643b12e4d2d"],
    (6, 8): ["0ebc5d3437fbe2db", "ca854ea128ed050b", "d37ee418976dd957"],
}


class Tree:
    """Every node computed from the leaves."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self._nodes: dict[Node, bytes] = {}

    def node(self, place: Node) -> bytes:
        if place not in self._nodes:
            level, position = place
            children = ((level - 1, 2 * position), (level - 1, 2 * position + 1))
            self._nodes[place] = node_hash(*map(self.node, children)) if level else leaf_hash(self.leaves[position])
        return self._nodes[place]

    def root(self, size: int) -> bytes:
        return range_hash((0, size), self.node)

    def inclusion(self, number: int, size: int) -> list[bytes]:
        return [range_hash(bounds, self.node) for bounds in inclusion_ranges(number, size)]

    def consistency(self, first: int, second: int) -> list[bytes]:
        return [range_hash(bounds, self.node) for bounds in consistency_ranges(first, second)]


def recursive_root(leaves: list[bytes]) -> bytes:
    """Return the root by the definition of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(recursive_root(leaves[:half]), recursive_root(leaves[half:]))


TREE = Tree(LEAVES)
LARGER = Tree([b"leaf %d" % number for number in range(33)])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert TREE.root(size).hex()[:16] == ROOTS[size - 1]


def test_empty_tree_has_the_published_root() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert TREE.root(0) == EMPTY_ROOT


@pytest.mark.parametrize("place", INCLUSIONS)
def test_inclusion_proofs_are_the_published_ones(place: tuple[int, int]) -> None:
    assert [node.hex()[:16] for node in TREE.inclusion(*place)] == INCLUSIONS[place]


@pytest.mark.parametrize("sizes", CONSISTENCIES)
def test_consistency_proofs_are_the_published_ones(sizes: tuple[int, int]) -> None:
    assert [node.hex()[:16] for node in TREE.consistency(*sizes)] == CONSISTENCIES[sizes]


def test_every_proof_of_every_size_holds() -> None:
    for size in range(1, len(LARGER.leaves) + 1):
        root = LARGER.root(size)
        assert root == recursive_root(LARGER.leaves[:size])
        for number in range(size):
            check_inclusion(leaf_hash(LARGER.leaves[number]), number, size, LARGER.inclusion(number, size), root)
        for first in range(1, size + 1):
            check_consistency(first, LARGER.root(first), size, root, LARGER.consistency(first, size))


def test_changed_inclusion_proof_does_not_hold() -> None:
    for size in (1, 2, 7, 8, 33):
        for number in range(size):
            leaf, path, root = leaf_hash(LARGER.leaves[number]), LARGER.inclusion(number, size), LARGER.root(size)
            wrong = [(leaf, number, [*path, root]), (leaf, number, [root, *path]), (leaf_hash(b""), number, path)]
            wrong += [(leaf, other, path) for other in range(-1, size + 1) if other != number]
            wrong += [(leaf, number, path[:-1]), (leaf, number, path[1:])] if path else []
            for place in range(len(path)):
                wrong.append((leaf, number, [*path[:place], bytes(32), *path[place + 1 :]]))
            for changed in wrong:
                with pytest.raises(InvalidProof):
                    check_inclusion(changed[0], changed[1], size, changed[2], root)


def test_changed_consistency_proof_does_not_hold() -> None:
    draws = random.Random(0)
    for first, second in [(1, 2), (2, 3), (4, 7), (6, 8), (8, 33), (31, 32), (17, 33)]:
        old, new, path = LARGER.root(first), LARGER.root(second), LARGER.consistency(first, second)
        place = draws.randrange(len(path))
        for changed in (
            (first, bytes(32), second, new, path),
            (first, old, second, bytes(32), path),
            (first, old, second, new, [*path, new]),
            (first, old, second, new, path[:-1]),
            (first, old, second, new, []),
            (first, old, second, new, [*path[:place], bytes(32), *path[place + 1 :]]),
            (second, new, first, old, path),
            (0, EMPTY_ROOT, second, new, path),
        ):
            with pytest.raises(InvalidProof):
                check_consistency(*changed)


def test_forked_tree_has_no_consistency_proof() -> None:
    forked = Tree([b"another", *LARGER.leaves[1:]])

    for first in range(1, 33):
        with pytest.raises(InvalidProof):
            check_consistency(first, LARGER.root(first), 33, forked.root(33), forked.consistency(first, 33))


def test_proof_in_a_large_log_needs_few_nodes() -> None:
    size = 1_000_003
    nodes = {node for bounds in inclusion_ranges(999_999, size) for node in range_nodes(*bounds)}

    assert len(nodes) <= 40
    assert all((position + 1) << level <= size for level, position in nodes)
