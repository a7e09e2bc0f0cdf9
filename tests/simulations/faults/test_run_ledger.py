"""A run's ledger, copied while it is in use and put back: what came after the copy is lost, and nothing else."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import DeletionRequest, WholeSite
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults.run_ledger import RunLedger
from tests.server.databases import postgresql_database

SITE = "hospital-1"


def enter(ledger: Ledger, *names: str) -> None:
    for name in names:
        ledger.enter(DeletionRequest(name, SITE, WholeSite(SITE)))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_ledger_that_is_put_back_knows_what_it_knew_when_it_was_copied(tmp_path: Path, database: str) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(postgresql_database()) if database == "postgresql" else ""
        kept = RunLedger.make(url, tmp_path)
        stack.callback(kept.remove)
        with Ledger(kept.url) as ledger:
            ledger.register(SITE)
            enter(ledger, "first")
            for last in ("second", "third"):
                # A later copy takes the place of the one before.
                enter(ledger, last)
                kept.copy(tmp_path / "copy")
            enter(ledger, "lost", "lost as well")

        kept.put_back(tmp_path / "copy")

        with Ledger(kept.url) as ledger:
            known = [status.request.request_id for status in ledger.page("", 10).statuses]
            assert known == ["first", "second", "third"]
            assert ledger.last_number(SITE) == 3
            enter(ledger, "another")
            assert [order.number for order in ledger.orders(SITE, 0, 10)] == [1, 2, 3, 4]
        assert kept.log_size() == 0
