from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee

REFERENCE = bytes(REFERENCE_BYTES)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
REQUEST = DeletionRequest("request-1", "data-protection-officer", Subject(REFERENCE))

PENDING, DELIVERED, ERASED, NOTHING_HELD, REFUSED, LEFT = SiteState


def progress(site: str, state: SiteState, *, records: int = 0, after: float | None = None) -> SiteProgress:
    if after is None:
        return SiteProgress(site, 1, state)
    answer = Acknowledgement(1, site, "request-1", state, records, records, Guarantee.EMPIRICAL, 0.5)
    return SiteProgress(site, 1, state, answer, NOON + timedelta(seconds=after))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_reference_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidDeletion, match=f"a reference has {length} bytes; it must have 32"):
        Subject(bytes(length))
    with pytest.raises(InvalidDeletion, match=f"a reference has {length} bytes"):
        Records(frozenset({REFERENCE, bytes(length)}))


def test_targets_without_content_are_refused() -> None:
    with pytest.raises(InvalidDeletion, match="names no record"):
        Records(frozenset())
    with pytest.raises(InvalidDeletion, match="names no site"):
        WholeSite("")


def test_records_address_every_site_unless_one_is_named() -> None:
    assert Records(frozenset({REFERENCE})).site == ""
    assert Records(frozenset({REFERENCE}), "north").site == "north"


@pytest.mark.parametrize(("request_id", "requester"), [("", "north"), ("request-1", "")])
def test_request_needs_an_id_and_a_requester(request_id: str, requester: str) -> None:
    with pytest.raises(InvalidDeletion, match="needs a request id and a requester"):
        DeletionRequest(request_id, requester, WholeSite("north"))


def test_requests_with_the_same_content_are_equal() -> None:
    same = DeletionRequest("request-1", "data-protection-officer", Subject(bytes(REFERENCE_BYTES)))

    assert same == REQUEST
    assert DeletionRequest("request-1", "north", Subject(REFERENCE)) != REQUEST


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ((), (RequestState.DISPATCHED, 0, None)),
        ((progress("a", ERASED, records=3, after=2), progress("b", PENDING)), (RequestState.DISPATCHED, 3, None)),
        (
            (
                progress("a", ERASED, records=3, after=9.5),
                progress("b", NOTHING_HELD, after=2),
                progress("c", ERASED, records=4, after=0.25),
            ),
            (RequestState.COMPLETED, 7, 9.5),
        ),
    ],
)
def test_status_counts_erased_records_and_lasts_until_the_last_answer(
    sites: tuple[SiteProgress, ...], expected: tuple[RequestState, int, float | None]
) -> None:
    status = RequestStatus(REQUEST, NOON, sites)

    assert (status.state, status.erased, status.seconds) == expected


def test_clock_is_in_utc() -> None:
    assert utc_now().utcoffset() == timedelta(0)
    assert abs(utc_now() - datetime.now(UTC)) < timedelta(minutes=1)
