"""What every ledger keeps to, whichever database it is in: it keeps what it was given, all or nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.server.ledger import view as ledger_view
from fedmunkey.server.ledger.ledger import DeletionConflict, DeletionExists, Ledger, UnknownDeletion

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)
REQUEST = DeletionRequest("request-1", OFFICER, Subject(bytes(range(32))))
ANSWER = Acknowledgement(1, "hospital-1", "request-1", SiteState.ERASED, 3, 2, Guarantee.EMPIRICAL, 0.25)
CERTIFIED = replace(
    ANSWER, guarantee=Guarantee.CERTIFIED, record_loss=PrivacyLoss(1.9, 1e-5), subject_loss=PrivacyLoss(4.1, 2e-5, 2)
)


class Clock:
    """Shows a time one second later each time."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def own_site(request_id: str) -> DeletionRequest:
    return DeletionRequest(request_id, "hospital-1", WholeSite("hospital-1"))


def references(count: int) -> frozenset[bytes]:
    return frozenset(number.to_bytes(32, "big") for number in range(count))


class LedgerContract:
    def test_everything_is_there_after_a_restart(self, database: str, ledger: Ledger) -> None:
        ledger.enter(REQUEST, ["hospital-1", "hospital-2"])
        ledger.acknowledge(ANSWER)
        ledger.open_round(3)
        before = (ledger.sites(), ledger.status("request-1"), ledger.page(), ledger.rounds(), ledger.pending())
        ledger.close()

        with Ledger(database) as again:
            after = (again.sites(), again.status("request-1"), again.page(), again.rounds(), again.pending())

        assert after == before
        assert before[4] == 1

    def test_answer_and_times_are_kept(self, ledger: Ledger) -> None:
        submitted = ledger.enter(REQUEST, ["hospital-1"])

        ledger.acknowledge(ANSWER)

        status = ledger.status("request-1")
        assert submitted.submitted_at == NOON + timedelta(seconds=3)
        assert status.sites[0].acknowledgement == ANSWER
        assert status.sites[0].acknowledged_at == NOON + timedelta(seconds=4)
        assert status.seconds == 1.0

    def test_request_comes_back_as_it_was_entered(self, ledger: Ledger) -> None:
        targets = (
            Records(references(2500), "hospital-1"),
            Records(references(1)),
            REQUEST.target,
            WholeSite("hospital-1"),
        )
        for number, target in enumerate(targets, 1):
            request = DeletionRequest(f"request-{number}", OFFICER, target)

            ledger.enter(request, ["hospital-1"])

            assert ledger.status(request.request_id).request == request
            order = ledger.order("hospital-1", number)
            assert order is not None
            assert order.request == request

    def test_request_ids_are_kept_letter_by_letter(self, ledger: Ledger) -> None:
        @settings(max_examples=20)
        @given(request_id=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200))
        def keep(request_id: str) -> None:
            request = replace(REQUEST, request_id=request_id)

            assert ledger.enter(request, ["hospital-1"]).request == request
            assert ledger.status(request_id).request == request

        keep()

    def test_request_to_an_unregistered_site_leaves_nothing_behind(self, ledger: Ledger) -> None:
        with pytest.raises(UnknownDeletion, match="hospital-9"):
            ledger.enter(REQUEST, ["hospital-1", "hospital-9"])

        assert ledger.page().statuses == ()
        assert ledger.last_number("hospital-1") == 0

    def test_same_request_again_writes_nothing_and_another_under_its_id_is_refused(self, ledger: Ledger) -> None:
        first = ledger.enter(REQUEST, ["hospital-1"])

        assert ledger.enter(REQUEST, ["hospital-1", "hospital-2"]) == first
        assert ledger.last_number("hospital-2") == 0
        with pytest.raises(DeletionExists, match="request-1"):
            ledger.enter(replace(REQUEST, target=WholeSite("hospital-1")), ["hospital-1"])

    def test_site_that_joins_later_gets_no_older_orders(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST, ["hospital-1", "hospital-2"])

        ledger.register("hospital-3")
        ledger.register("hospital-3")

        assert [(site.name, site.orders, site.pending) for site in ledger.sites()] == [
            ("hospital-1", 1, 1),
            ("hospital-2", 1, 1),
            ("hospital-3", 0, 0),
        ]
        assert ledger.site_names() == ("hospital-1", "hospital-2", "hospital-3")

    def test_name_that_no_site_can_have_is_refused(self, ledger: Ledger) -> None:
        for name in ("", " hospital", "two\nlines", "x" * 101, OFFICER):
            with pytest.raises(InvalidDeletion, match="cannot be a site's name"):
                ledger.register(name)

    def test_answer_that_differs_is_refused(self, ledger: Ledger) -> None:
        certified = replace(CERTIFIED, number=2, request_id="request-2")
        plain: list[dict[str, Any]] = [
            {"records": 4},
            {"entries": 1},
            {"guarantee": Guarantee.EXACT},
            {"reason": "late"},
        ]
        losses: list[dict[str, Any]] = [
            {"record_loss": PrivacyLoss(1.8, 1e-5)},
            {"record_loss": PrivacyLoss(1.9, 1e-6)},
            {"subject_loss": PrivacyLoss(math.inf, 2e-5, 2)},
            {"subject_loss": PrivacyLoss(4.1, 1e-5, 2)},
            {"subject_loss": PrivacyLoss(4.1, 2e-5, 3)},
            {"guarantee": Guarantee.EXACT, "record_loss": None, "subject_loss": None},
        ]
        for answer, changes in ((ANSWER, plain), (certified, losses)):
            ledger.enter(replace(REQUEST, request_id=answer.request_id), ["hospital-1"])
            ledger.acknowledge(answer)

            for change in changes:
                with pytest.raises(DeletionConflict, match="cannot be changed"):
                    ledger.acknowledge(replace(answer, **change))

            assert ledger.status(answer.request_id).sites[0].acknowledgement == answer

    def test_what_a_certified_answer_leaves_is_kept(self, ledger: Ledger) -> None:
        for number, epsilon in enumerate((0.0, 4.1, math.inf), 1):
            request = replace(REQUEST, request_id=f"request-{number}")
            loss = PrivacyLoss(epsilon, 2e-5, 2)
            answer = replace(CERTIFIED, number=number, request_id=request.request_id, subject_loss=loss)
            ledger.enter(request, ["hospital-1"])
            ledger.acknowledge(answer)
            ledger.acknowledge(replace(answer, seconds=9.0))

            assert ledger.status(request.request_id).sites[0].acknowledgement == answer

    def test_answer_to_another_request_is_refused(self, ledger: Ledger) -> None:
        ledger.enter(REQUEST, ["hospital-1"])

        with pytest.raises(UnknownDeletion, match="no order 1 for request 'request-2'"):
            ledger.acknowledge(replace(ANSWER, request_id="request-2"))

    def test_page_ends_before_it_names_too_many_records(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_view, "PAGE_REFERENCES", 5)
        for number, count in enumerate((3, 2, 9, 1)):
            request = DeletionRequest(f"request-{number}", OFFICER, Records(references(count)))
            ledger.enter(request, ["hospital-1"])

        pages, page = [], ledger.page()
        while page.next_page:
            pages.append(page)
            page = ledger.page(page.next_page)
        sizes = [[status.request.request_id for status in page.statuses] for page in [*pages, page]]

        assert sizes == [["request-0", "request-1"], ["request-2"], ["request-3"]]
