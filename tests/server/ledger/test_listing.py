"""Lists of requests and sites, as consoles show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from fedmunkey.common.deletions.listing import Moved, RequestQuery, SiteQuery
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.ledger.ledger import Ledger
from tests.server.ledger.ledger_contract import Clock, references

SITES = ("hospital-1", "hospital-2")


def reference(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def ledger(database: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger with two sites, in each kind of database."""
    with Ledger(database, clock=clock) as opened:
        for site in SITES:
            opened.register(site)
        yield opened


def enter(ledger: Ledger, request_id: str, target: Target | None = None, requester: str = OFFICER) -> None:
    ledger.enter(DeletionRequest(request_id, requester, target or Subject(reference(1))))


def answer(ledger: Ledger, site: str, number: int, request_id: str, state: SiteState = SiteState.ERASED) -> None:
    erased = 1 if state is SiteState.ERASED else 0
    reason = "it may not" if state is SiteState.REFUSED else ""
    said = Acknowledgement(number, site, request_id, state, erased, erased, Guarantee.EXACT, 0.5, reason)
    ledger.acknowledge(said)


def names(ledger: Ledger, query: RequestQuery) -> list[str]:
    return [found.request_id for found in ledger.find(query).requests]


def test_open_requests_come_first_by_when_they_are_due_then_the_newest_that_ended(ledger: Ledger, clock: Clock) -> None:
    for number, name in enumerate(("ended-1", "ended-2", "late", "soon", "new"), 1):
        enter(ledger, name)
        clock.time += timedelta(days=1)
        if name.startswith("ended"):
            for site in SITES:
                answer(ledger, site, number, name)
    ledger.extend("late", 60, "a holiday")

    assert names(ledger, RequestQuery()) == ["soon", "new", "late", "ended-2", "ended-1"]
    assert ledger.find(RequestQuery()).total == 5


def test_pages_hold_every_request_once(ledger: Ledger) -> None:
    for number in range(1, 8):
        enter(ledger, f"request-{number}")
        if number % 2:
            for site in SITES:
                answer(ledger, site, number, f"request-{number}")

    pages = [names(ledger, RequestQuery(page=page, size=2)) for page in range(1, 6)]

    assert pages == [
        ["request-2", "request-4"],
        ["request-6", "request-7"],
        ["request-5", "request-3"],
        ["request-1"],
        [],
    ]


def test_row_says_what_became_of_a_request_at_its_sites(ledger: Ledger, clock: Clock) -> None:
    enter(ledger, "one", Records(references(3), "hospital-2"))
    enter(ledger, "two")
    answer(ledger, "hospital-1", 1, "two")
    answer(ledger, "hospital-2", 2, "two", SiteState.REFUSED)
    clock.time += timedelta(days=31)

    late, done = ledger.find(RequestQuery()).requests

    assert (late.kind, late.site, late.references, late.state) == ("records", "hospital-2", 3, RequestState.OVERDUE)
    assert (late.sites, late.answered) == (1, 0)
    assert (done.kind, done.state, done.requester) == ("subject", RequestState.PARTIAL, OFFICER)
    assert (done.sites, done.answered, done.erased, done.refused, done.left) == (2, 2, 1, 1, 0)


def test_filters_leave_out_what_does_not_fit(ledger: Ledger, clock: Clock) -> None:
    enter(ledger, "late-1")
    clock.time += timedelta(days=31)
    enter(ledger, "records-1", Records(references(3), "hospital-1"))
    enter(ledger, "site-1", WholeSite("hospital-2"))
    enter(ledger, "per%cent", Subject(reference(77)))

    def found(**filters: object) -> list[str]:
        return names(ledger, RequestQuery(**filters))  # type: ignore[arg-type]

    assert found(states=(RequestState.OVERDUE,)) == ["late-1"]
    assert found(states=(RequestState.DISPATCHED,)) == ["records-1", "site-1", "per%cent"]
    assert found(states=(RequestState.COMPLETED,)) == []
    assert found(kinds=("records", "site")) == ["records-1", "site-1"]
    assert found(site="hospital-2") == ["late-1", "site-1", "per%cent"]
    assert found(beginning="per%") == ["per%cent"]
    assert found(beginning="%") == []
    assert found(references=(reference(77),)) == ["per%cent"]
    assert found(references=(max(references(3)), reference(404))) == ["records-1"]
    assert found(references=(reference(404),)) == []


def test_everybody_sees_what_is_theirs(ledger: Ledger) -> None:
    enter(ledger, "officers")
    enter(ledger, "at-one", Records(references(1), "hospital-1"))
    enter(ledger, "own", Subject(reference(5)), "hospital-2")

    assert names(ledger, RequestQuery()) == ["officers", "at-one", "own"]
    assert names(ledger, RequestQuery(OFFICER)) == ["officers", "at-one"]
    assert names(ledger, RequestQuery("hospital-1")) == ["officers", "at-one"]
    assert names(ledger, RequestQuery("hospital-2")) == ["officers", "own"]
    assert [site.site for site in ledger.site_summaries(SiteQuery(OFFICER)).sites] == list(SITES)
    assert [site.site for site in ledger.site_summaries(SiteQuery("hospital-2")).sites] == ["hospital-2"]
    assert {moved.request_id for moved in ledger.moves_after("hospital-2", 0)} == {"officers", "own"}


def test_moves_are_told_from_an_event_on(ledger: Ledger) -> None:
    enter(ledger, "one")
    before = ledger.last_event()
    answer(ledger, "hospital-1", 1, "one")

    moved = ledger.moves_after("", before)

    assert {move.request_id for move in moved} == {"one"}
    assert moved[-1] == Moved(ledger.last_event(), "one")
    assert ledger.moves_after("", ledger.last_event()) == ()


def test_sites_are_told_with_their_last_answers(ledger: Ledger, clock: Clock) -> None:
    for number, wait in enumerate((10, 20, 600), 1):
        enter(ledger, f"request-{number}", Records(references(1), "hospital-1"))
        clock.time += timedelta(seconds=wait)
        answer(ledger, "hospital-1", number, f"request-{number}")
    enter(ledger, "waits")

    first, second = ledger.site_summaries(SiteQuery()).sites

    # This clock is a little later whenever it is looked at.
    assert (first.orders, first.pending) == (4, 1)
    assert first.seconds == pytest.approx(22, abs=3)
    assert first.answered_at is not None
    assert abs(clock.time - first.answered_at) < timedelta(seconds=10)
    assert (second.orders, second.pending, second.seconds, second.answered_at) == (1, 1, None, None)
    assert not first.connected


def test_overview_counts_states_and_weeks(ledger: Ledger, clock: Clock) -> None:
    for number in (1, 2, 3):
        enter(ledger, f"request-{number}")
    answer(ledger, "hospital-1", 1, "request-1")
    answer(ledger, "hospital-2", 1, "request-1")
    clock.time += timedelta(days=35)
    answer(ledger, "hospital-1", 2, "request-2")
    answer(ledger, "hospital-2", 2, "request-2")

    overview = ledger.overview("")

    assert (overview.open, overview.late) == (1, 1)
    assert overview.states[RequestState.COMPLETED] == 2
    assert len(overview.weeks) == 12
    assert overview.weeks[0].begins.weekday() == 0
    assert [(week.asked, week.ended, week.in_time) for week in overview.weeks if week.asked or week.ended] == [
        (3, 1, 1),
        (0, 1, 0),
    ]
    assert ledger.overview("nobody").open == 0


@pytest.mark.parametrize(
    "wrong", [{"page": 0}, {"size": 0}, {"size": 1001}, {"kinds": ("patients",)}, {"references": (bytes(32),) * 101}]
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidDeletion):
        RequestQuery(**wrong)  # type: ignore[arg-type]


def test_sites_come_in_pages_and_by_how_their_names_begin(ledger: Ledger) -> None:
    for number in range(5):
        ledger.register(f"clinic-{number}")

    def shown(**asked: Any) -> tuple[list[str], int]:
        found = ledger.site_summaries(SiteQuery(**asked))
        return [site.site for site in found.sites], found.total

    assert shown(size=3) == (["clinic-0", "clinic-1", "clinic-2"], 7)
    assert shown(size=3, page=3) == (["hospital-2"], 7)
    assert shown(size=3, page=4) == ([], 7)
    assert shown(beginning="hospital") == (list(SITES), 2)
    assert shown(reader="hospital-1", size=3) == (["hospital-1"], 1)
    assert shown(reader="hospital-1", beginning="clinic") == ([], 0)
    assert shown(brief=True)[0] == shown()[0]
    with pytest.raises(InvalidDeletion, match="at most 1000"):
        SiteQuery(size=1001)
    with pytest.raises(InvalidDeletion, match="there is no page 0"):
        SiteQuery(page=0)
