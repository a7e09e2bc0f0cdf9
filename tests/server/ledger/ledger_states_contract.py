"""What every ledger keeps to: states move as they may, every move is an event, time runs out, sites come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.deletions.words import DeletionRequest, Records, RequestState, SiteState, WholeSite
from fedmunkey.common.errors import IllegalMove, InvalidDeletion
from fedmunkey.server.ledger.due import DUE_DAYS
from fedmunkey.server.ledger.ledger import DeletionConflict, Ledger, UnknownDeletion
from fedmunkey.server.ledger.writer import Event, Transaction
from tests.server.ledger.ledger_contract import ANSWER, NOON, REQUEST, Clock, references

SECOND = replace(ANSWER, site="hospital-2")


def moves(ledger: Ledger, request_id: str = "request-1") -> list[tuple[str, str, str]]:
    return [(move.site, move.before, move.after) for move in ledger.history(request_id)]


class LedgerStatesContract:
    def test_every_move_is_recorded_in_order(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)
        ledger.note_delivered([("hospital-1", 1)]).result()
        ledger.acknowledge(ANSWER)
        ledger.note_delivered([("hospital-1", 1)]).result()
        ledger.acknowledge(SECOND)

        assert moves(ledger) == [
            ("", "", "received"),
            ("", "received", "verified"),
            ("", "verified", "dispatched"),
            ("hospital-1", "pending", "delivered"),
            ("hospital-1", "delivered", "erased"),
            ("hospital-2", "pending", "erased"),
            ("", "dispatched", "completed"),
        ]
        times = [move.at for move in ledger.history("request-1")]
        assert times == sorted(times)
        assert times[0] == NOON + timedelta(seconds=3)

    def test_events_cannot_be_changed_or_taken_away(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)
        before = moves(ledger)

        for statement in ("UPDATE events SET after = 'completed'", "DELETE FROM events"):
            with pytest.raises(DBAPIError, match="never changed"), ledger._engine.begin() as connection:
                connection.exec_driver_sql(statement)

        assert moves(ledger) == before

    def test_illegal_move_is_refused_and_leaves_nothing_behind(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)
        before = moves(ledger)

        def jump(transaction: Transaction, numbers: Sequence[int]) -> list[None]:
            transaction.record(Event(transaction.at, 1, "", "dispatched", "received"))
            transaction.flush()
            transaction.move_request(numbers[0], RequestState.DISPATCHED, RequestState.RECEIVED)
            return [None]

        with pytest.raises(IllegalMove, match="'dispatched' cannot become 'received'"):
            ledger._writer.submit(jump, 1).result()

        assert moves(ledger) == before
        assert ledger.status("request-1").state is RequestState.DISPATCHED

    def test_refusal_by_one_site_makes_the_request_partial(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)

        ledger.acknowledge(replace(ANSWER, state=SiteState.REFUSED, records=0, entries=0, reason="its key is unknown"))
        assert ledger.status("request-1").state is RequestState.DISPATCHED
        ledger.acknowledge(SECOND)

        status = ledger.status("request-1")
        assert status.state is RequestState.PARTIAL
        assert status.sites[0].reason == "its key is unknown"

    def test_request_is_late_from_the_moment_that_it_is_due(self, ledger: Ledger, clock: Clock) -> None:
        due = ledger.enter(REQUEST).due_at
        assert due == NOON + timedelta(seconds=3, days=DUE_DAYS)
        ledger.enter(DeletionRequest("other", "hospital-2", WholeSite("hospital-2")))
        ledger.acknowledge(replace(SECOND, number=2, request_id="other"))
        assert ledger.mark_overdue() == 0
        assert ledger.page(late=True).statuses == ()

        clock.time = due
        shown = ledger.page(late=True).statuses
        summary = ledger.summary()
        assert [(status.request.request_id, status.state) for status in shown] == [("request-1", RequestState.OVERDUE)]
        assert (summary.requests[RequestState.OVERDUE], summary.requests[RequestState.DISPATCHED]) == (1, 0)
        assert moves(ledger)[-1] == ("", "verified", "dispatched")

        assert ledger.mark_overdue() == 1
        assert ledger.mark_overdue() == 0
        assert moves(ledger)[-1] == ("", "dispatched", "overdue")

    def test_late_request_still_comes_to_its_end(self, ledger: Ledger, clock: Clock) -> None:
        ledger.enter(REQUEST)
        clock.time += timedelta(days=DUE_DAYS)
        ledger.mark_overdue()

        ledger.acknowledge(ANSWER)
        assert ledger.status("request-1").state is RequestState.OVERDUE
        ledger.acknowledge(SECOND)

        assert ledger.status("request-1").state is RequestState.COMPLETED
        assert ledger.page(late=True).statuses == ()

    def test_late_request_is_given_more_time_once(self, ledger: Ledger, clock: Clock) -> None:
        due = ledger.enter(REQUEST).due_at
        assert due is not None
        clock.time = due
        ledger.mark_overdue()

        status = ledger.extend("request-1", 20, "hospital-2 restores its server")

        assert (status.state, status.due_at) == (RequestState.DISPATCHED, due + timedelta(days=20))
        assert status.extension == "hospital-2 restores its server"
        assert [move.reason for move in ledger.history("request-1")[-2:]] == [
            "hospital-2 restores its server",
            "it was given more time",
        ]
        with pytest.raises(DeletionConflict, match="cannot be extended twice"):
            ledger.extend("request-1", 20, "still not")
        clock.time = due + timedelta(days=20)
        assert ledger.status("request-1").state is RequestState.OVERDUE

    def test_extension_that_cannot_be_is_refused(self, ledger: Ledger) -> None:
        before = ledger.enter(REQUEST)
        for days, reason in ((0, "why"), (61, "why"), (-5, "why"), (10, " "), (10, "two\nlines")):
            with pytest.raises(InvalidDeletion):
                ledger.extend("request-1", days, reason)
        with pytest.raises(UnknownDeletion, match="no request 'request-9'"):
            ledger.extend("request-9", 10, "why")
        assert ledger.status("request-1") == before

        ledger.acknowledge(ANSWER)
        ledger.acknowledge(SECOND)
        with pytest.raises(DeletionConflict, match="is completed"):
            ledger.extend("request-1", 10, "why")

    def test_site_that_leaves_makes_its_open_requests_partial(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)
        ledger.enter(replace(REQUEST, request_id="request-2"), ["hospital-1"])
        ledger.acknowledge(ANSWER)

        assert ledger.remove("hospital-2", "it has closed") == 1

        status = ledger.status("request-1")
        assert (status.state, status.sites[1].state) == (RequestState.PARTIAL, SiteState.LEFT)
        assert status.sites[1].reason == "hospital-2 left the federation: it has closed"
        assert status.seconds is None
        assert ledger.status("request-2").state is RequestState.DISPATCHED
        assert moves(ledger)[-2:] == [("hospital-2", "pending", "left"), ("", "dispatched", "partial")]
        assert (ledger.site_names(), ledger.pending()) == (("hospital-1",), 1)
        with pytest.raises(DeletionConflict, match="has left the federation"):
            ledger.last_number("hospital-2")
        with pytest.raises(DeletionConflict, match="has left the federation"):
            ledger.acknowledge(SECOND)
        with pytest.raises(DeletionConflict, match="left the federation already"):
            ledger.remove("hospital-2")
        with pytest.raises(UnknownDeletion, match="not registered"):
            ledger.remove("hospital-9")

    def test_site_that_comes_back_carries_out_all_that_it_missed(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST)
        ledger.acknowledge(ANSWER)
        ledger.remove("hospital-2")
        meanwhile = replace(REQUEST, request_id="request-2")
        ledger.enter(meanwhile)
        ledger.enter(DeletionRequest("own", "hospital-1", REQUEST.target))
        ledger.acknowledge(replace(ANSWER, number=2, request_id="request-2"))
        assert ledger.status("request-2").state is RequestState.COMPLETED

        ledger.register("hospital-2")

        first, second = ledger.order("hospital-2", 1), ledger.order("hospital-2", 2)
        assert [order.request for order in (first, second) if order] == [REQUEST, meanwhile]
        assert ledger.order("hospital-2", 3) is None
        assert {ledger.status(name).state for name in ("request-1", "request-2")} == {RequestState.DISPATCHED}
        ledger.acknowledge(SECOND)
        ledger.acknowledge(replace(SECOND, number=2, request_id="request-2"))
        assert {ledger.status(name).state for name in ("request-1", "request-2")} == {RequestState.COMPLETED}
        assert ledger.remove("hospital-2") == 0
        ledger.register("hospital-2")
        assert ledger.last_number("hospital-2") == 2

    def test_orders_that_are_read_together_name_few_records(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fedmunkey.server.ledger.view.MAXIMUM_REFERENCES", 1000)
        for number, count in enumerate((400, 400, 400, 1200, 400)):
            ledger.enter(DeletionRequest(f"r{number}", "hospital-1", Records(references(count), "hospital-1")))

        read = [[order.number for order in ledger.orders("hospital-1", after, 10)] for after in (0, 2, 3, 4)]

        assert read == [[1, 2], [3], [4], [5]]
        assert len(ledger.orders("hospital-1", 0, 1)) == 1
