"""A deletion under `exact` says to who asks that the shared weights still hold what was erased, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.client.deletions import requester
from fedmunkey.client.deletions.requester import together
from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Outcome,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
)
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.ledger.due import DUE_DAYS
from tests.releases import give

from .conftest import OTHER, SITE, Run

STILL_HELD = "guarantee exact: its entries are gone; the shared weights still hold what they contributed"
NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)


@pytest.fixture
def words(secret: Path, service: str, ledger: LedgerService) -> list[object]:
    """The words with which the officer asks a federation whose weights were solved for with both sites' records."""
    release(ledger, 0)
    return ["forget", "--as", "officer", "--secret", secret, "--service", service]


def release(ledger: LedgerService, last_order: int) -> None:
    parts = tuple(SiteContribution(site, last_order, b"") for site in (SITE, OTHER))
    give(ledger, ReleasedWeights("ab" * 32, 100, 12, parts))


def answer(ledger: LedgerService, site: str, state: SiteState = SiteState.ERASED, after: int = 0) -> None:
    entries = 1 if state is SiteState.ERASED else 0
    reason = "its key is unknown" if state is SiteState.REFUSED else ""
    for order in ledger.watch(site, after):
        counted = (state, entries, entries, Guarantee.EXACT, 0.25, reason)
        ledger.acknowledge(Acknowledgement(order.number, site, order.request.request_id, *counted))


def test_words_and_exit_code_before_and_after_the_renewal(run: Run, ledger: LedgerService, words: list[object]) -> None:
    asked = [*words, "--subject", "patient-1", "--request-id", "request-1"]
    run(*asked, "--wait", 0)
    for site in (SITE, OTHER):
        answer(ledger, site)
    renew_by = ledger.get("request-1").renew_by
    assert renew_by is not None

    # It has its answers, so nothing is waited for.
    waits, before = run(*asked, "--wait", 500), run(*asked, "--json").json
    release(ledger, 1)
    renewed, after = run(*asked), run(*asked, "--json").json

    assert (waits.code, renewed.code) == (Outcome.ERASED, Outcome.ERASED)
    assert "request request-1: erased, 2 records erased" in waits.out
    assert f"{STILL_HELD}, and are renewed by {renew_by:%Y-%m-%d %H:%M} UTC" in waits.out
    assert Guarantee.EXACT.remains not in waits.out
    assert (before["state"], before["outcome"], before["renew_by"]) == ("erased", "erased", renew_by.isoformat())
    assert before["remains"].startswith("its entries are gone; the shared weights still hold")
    assert "request request-1: completed, 2 records erased" in renewed.out
    assert f"guarantee exact: {Guarantee.EXACT.remains}" in renewed.out
    assert STILL_HELD not in renewed.out
    assert (after["state"], after["remains"]) == ("completed", Guarantee.EXACT.remains)


def test_late_request_that_waits_for_weights_only_is_not_waited_for(
    run: Run, ledger: LedgerService, words: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*words, "--subject", "patient-1", "--request-id", "request-1"]
    run(*asked, "--wait", 0)
    for site in (SITE, OTHER):
        answer(ledger, site)
    late = datetime.now(UTC) + timedelta(days=DUE_DAYS + 1)
    monkeypatch.setattr(ledger.ledger._writer, "_clock", lambda: late)
    ledger.ledger.mark_overdue()

    ended = run(*asked, "--wait", 500)

    assert ended.code == Outcome.ERASED
    assert "request request-1: overdue, 2 records erased" in ended.out
    assert STILL_HELD in ended.out


def test_parts_of_a_large_request_wait_together(
    run: Run, ledger: LedgerService, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requester, "MAXIMUM_REFERENCES", 2)
    (tmp_path / "ids.txt").write_text("scan-1\nscan-2\nscan-3\n")
    asked = [*words, "--records-file", tmp_path / "ids.txt", "--request-id", "large"]
    run(*asked, "--wait", 0)
    answer(ledger, SITE)
    half = run(*asked, "--wait", 0)
    answer(ledger, OTHER)
    last = max(filter(None, (ledger.get(f"large.{number}").renew_by for number in (1, 2))))

    waits = run(*asked, "--json").json
    release(ledger, 1)
    first_only = run(*asked, "--json").json
    release(ledger, 2)

    assert half.code == Outcome.PENDING
    assert (waits["state"], waits["renew_by"]) == ("erased", last.isoformat())
    assert first_only["state"] == "erased"
    assert run(*asked, "--json").json["state"] == "completed"


def part(number: int, *states: SiteState, recorded: RequestState, renew_by: datetime | None) -> RequestStatus:
    request = DeletionRequest(f"large.{number}", OFFICER, Records(frozenset({bytes([number]) * 32})))
    sites = tuple(SiteProgress(f"hospital-{place}", number, state) for place, state in enumerate(states, 1))
    return RequestStatus(request, NOON, sites, recorded, renew_by=renew_by)


def test_parts_of_which_one_was_refused_are_not_called_erased() -> None:
    request = DeletionRequest("large", OFFICER, Subject(bytes(32)))
    waits = part(1, SiteState.ERASED, recorded=RequestState.ERASED, renew_by=NOON)
    later = part(2, SiteState.ERASED, recorded=RequestState.OVERDUE, renew_by=NOON + timedelta(days=1))
    refused = part(3, SiteState.REFUSED, recorded=RequestState.REFUSED, renew_by=None)
    open_ = part(4, SiteState.PENDING, recorded=RequestState.DISPATCHED, renew_by=None)

    both, some, awaited = (together(request, parts) for parts in ([waits, later], [waits, refused], [waits, open_]))

    assert (both.state, both.renew_by, both.renewal_owed) == (RequestState.ERASED, NOON + timedelta(days=1), True)
    assert (some.state, some.outcome, some.renewal_owed) == (RequestState.PARTIAL, Outcome.PARTIAL, False)
    assert (awaited.state, awaited.outcome, awaited.renewal_owed) == (
        RequestState.DISPATCHED,
        Outcome.PENDING,
        False,
    )


def test_late_request_that_a_site_came_back_to_has_more_to_come_than_weights() -> None:
    status = part(1, SiteState.ERASED, SiteState.PENDING, recorded=RequestState.OVERDUE, renew_by=NOON)

    assert not status.renewal_owed
