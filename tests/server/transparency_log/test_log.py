from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete

from fedmunkey.common.errors import InvalidProof, ServiceUnavailable
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.merkle import EMPTY_ROOT, check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.server.database.log_tables import LogNodeRow
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import Leaf, LeafKind
from fedmunkey.server.transparency_log.log import MAXIMUM_INCLUSIONS, TransparencyLog

KEY = SigningKey.from_seed(bytes(32))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def log(ledger: Ledger) -> TransparencyLog:
    return TransparencyLog(ledger.engine, KEY, clock=lambda: NOW)


def leaf(number: int, content: bytes | None = None) -> Leaf:
    return Leaf(LeafKind.RECEIPT, f"leaf-{number}", b"%d" % number if content is None else content)


def test_empty_log_has_a_head(log: TransparencyLog) -> None:
    assert LogHead.of(log.head()) == LogHead(0, EMPTY_ROOT, NOW)


def test_every_leaf_is_proved_and_every_state_extended(log: TransparencyLog) -> None:
    roots = [EMPTY_ROOT]
    for first in range(0, 21, 3):
        log.extend([leaf(number) for number in range(first, first + 3)])
    roots += [log.root(size) for size in range(1, 22)]

    for number in range(21):
        proof = log.prove(number, 21)
        check_inclusion(leaf_hash(b"%d" % number), number, 21, proof.path, roots[21])
        with pytest.raises(InvalidProof):
            check_inclusion(leaf_hash(b"another"), number, 21, proof.path, roots[21])
    for first in range(1, 22):
        check_consistency(first, roots[first], 21, roots[21], log.prove_extension(first, 21))
        with pytest.raises(InvalidProof):
            check_consistency(first, leaf_hash(b"another"), 21, roots[21], log.prove_extension(first, 21))


def test_many_leaves_at_once_make_the_same_log_as_one_by_one(log: TransparencyLog, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.sqlite") as other_ledger:
        other = TransparencyLog(other_ledger.engine, KEY, clock=lambda: NOW)
        other.extend([leaf(number) for number in range(13)])
        for number in range(13):
            log.extend([leaf(number)])

        assert other.head() == log.head()


def test_leaf_of_the_same_name_is_not_appended_again(log: TransparencyLog) -> None:
    assert log.extend([leaf(1, b"first")]) == [b"first"]
    assert log.extend([leaf(1, b"second")]) == [b"first"]
    assert log.extend([Leaf(LeafKind.REQUEST, "leaf-1", b"third")]) == [b"third"]
    assert log.extend([leaf(2, b"a"), leaf(2, b"b")]) == [b"a", b"a"]
    assert LogHead.of(log.head()).size == 3
    assert log.content(LeafKind.RECEIPT, "leaf-1") == b"first"
    assert log.content(LeafKind.RECEIPT, "leaf-9") is None
    assert log.number(LeafKind.REQUEST, "leaf-1") == 1


def test_head_is_signed_once_for_a_size(ledger: Ledger) -> None:
    times = iter([NOW, NOW.replace(year=2027), NOW.replace(year=2028)])
    log = TransparencyLog(ledger.engine, KEY, clock=lambda: next(times))
    log.extend([leaf(1)])

    first, again = log.head(), log.head()
    log.extend([leaf(2)])

    first.verify({KEY.public.key_id: KEY.public})
    assert first.to_bytes() == again.to_bytes()
    assert LogHead.of(log.head()).size == 2


def test_update_shows_what_is_new_and_where_leaves_stand(log: TransparencyLog) -> None:
    log.extend([leaf(number) for number in range(5)])
    seen = LogHead.of(log.head())
    log.extend([leaf(number) for number in range(5, 12)])

    update = log.update(seen.size, [leaf_hash(b"7"), leaf_hash(b"unknown")])

    head = LogHead.of(update.head)
    check_consistency(seen.size, seen.root, head.size, head.root, update.consistency)
    found, missing = update.inclusions
    assert found is not None
    assert (found.number, missing) == (7, None)
    check_inclusion(leaf_hash(b"7"), 7, 12, found.path, head.root)


def test_update_from_a_larger_log_or_with_too_many_questions_is_refused(log: TransparencyLog) -> None:
    log.extend([leaf(1)])

    with pytest.raises(InvalidProof, match="1 leaves, not the 2"):
        log.update(2)
    with pytest.raises(InvalidProof, match="too many"):
        log.update(0, [bytes(32)] * (MAXIMUM_INCLUSIONS + 1))


def test_log_is_where_it_was_after_a_restart(ledger: Ledger, log: TransparencyLog) -> None:
    log.extend([leaf(number) for number in range(6)])

    again = TransparencyLog(ledger.engine, KEY, clock=lambda: NOW.replace(year=2030))

    assert again.head() == log.head()
    again.extend([leaf(6)])
    assert LogHead.of(again.head()).size == 7


def test_threads_append_without_gaps(log: TransparencyLog) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: log.extend([leaf(number % 20)]), range(40)))

    assert LogHead.of(log.head()).size == 20
    assert {log.number(LeafKind.RECEIPT, f"leaf-{number}") for number in range(20)} == set(range(20))
    for number in range(20):
        content = b"%d" % number
        place = log.number(LeafKind.RECEIPT, f"leaf-{number}")
        assert place is not None
        check_inclusion(leaf_hash(content), place, 20, log.prove(place, 20).path, log.root(20))


def test_lost_node_is_a_fault_of_the_database(ledger: Ledger, log: TransparencyLog) -> None:
    log.extend([leaf(number) for number in range(4)])
    with ledger.engine.execution_options(write=True).begin() as connection:
        connection.execute(delete(LogNodeRow))

    with pytest.raises(ServiceUnavailable, match="backup"):
        log.prove(0, 4)
