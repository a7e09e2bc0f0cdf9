"""Rows that are looked up by many two-part keys at once are found through the index, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event, select

from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, SiteState, WholeSite
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.server.database.log_tables import LogNodeRow
from fedmunkey.server.database.pairs import PairQuery
from fedmunkey.server.database.tables import OrderRow
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import Leaf, LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog

SITES = ("hospital-1", "hospital-2")
ORDERS = 40


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    with Ledger(database) as ledger:
        yield ledger


@pytest.fixture
def asked(ledger: Ledger) -> Ledger:
    """A ledger in which each site has some orders."""
    for site in SITES:
        ledger.register(site)
    for site in SITES:
        for number in range(ORDERS):
            ledger.enter_soon(DeletionRequest(f"{site}-{number}", site, WholeSite(site))).result()
    return ledger


@pytest.fixture
def statements(asked: Ledger) -> list[tuple[str, object]]:
    """Every statement that is executed, with its parameters."""
    found: list[tuple[str, object]] = []
    event.listen(asked.engine, "before_cursor_execute", lambda *args: found.append((args[2], args[3])))
    return found


def answer(site: str, number: int) -> Acknowledgement:
    return Acknowledgement(number, site, f"{site}-{number - 1}", SiteState.ERASED, 1, 1, Guarantee.EXACT, 0.1)


def test_pairs_find_their_rows_once_and_no_others(asked: Ledger) -> None:
    pairs = [("hospital-1", 1), ("hospital-2", 3), ("hospital-1", 1), ("hospital-1", 999), ("nobody", 1)]
    orders = PairQuery(select(OrderRow.site, OrderRow.number), OrderRow.site, OrderRow.number)
    nodes = PairQuery(select(LogNodeRow.hash), LogNodeRow.level, LogNodeRow.position)
    with asked.engine.connect() as connection:
        for _ in range(2):
            assert sorted(map(tuple, orders.rows(connection, pairs))) == [("hospital-1", 1), ("hospital-2", 3)]
        assert orders.rows(connection, []) == []
        assert nodes.rows(connection, [(0, 2**40)]) == []


def test_no_whole_table_is_read_for_answers_deliveries_and_proofs(
    asked: Ledger, statements: list[tuple[str, object]]
) -> None:
    if asked.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL reads small tables whole whatever the index")
    asked.note_delivered([(site, number) for site in SITES for number in (1, 2, 3)]).result()
    asked.note_delivered([("hospital-1", 4)]).result()
    for site in (*SITES, SITES[0]):
        asked.acknowledge(answer(site, 2))
    before = plans_of(asked, statements)
    log = TransparencyLog(asked.engine, SigningKey.from_seed(bytes(32)))
    log.extend([Leaf(LeafKind.RECEIPT, f"site/{number}", b"leaf") for number in range(100)])
    statements.clear()

    log.prove(17, 100)

    assert sum(statement.startswith("SELECT") for statement, _ in statements) == 1
    assert all(any(table in step for step in before) for table in ("orders", "acknowledgements"))
    plans = [*before, *plans_of(asked, statements)]
    assert [step for step in plans if step.startswith("SCAN") and not step.startswith("SCAN pairs")] == []


def test_delivered_orders_of_several_sites_are_noted_together(asked: Ledger) -> None:
    asked.note_delivered([("hospital-1", 1), ("hospital-2", 2)]).result()

    states = {(part.site, part.number): part.state for status in asked.page().statuses for part in status.sites}
    assert {place for place, state in states.items() if state is SiteState.DELIVERED} == {
        ("hospital-1", 1),
        ("hospital-2", 2),
    }


def plans_of(ledger: Ledger, statements: list[tuple[str, object]]) -> list[str]:
    """Return the steps by which SQLite reads tables for some statements."""
    steps: list[str] = []
    with ledger.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        for statement, values in list(statements):
            if statement.startswith(("SELECT", "UPDATE")):
                one = values[0] if isinstance(values, list) else values
                steps += [row[-1] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", one)]
    return steps
