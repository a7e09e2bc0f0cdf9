"""What is sent is what arrives, and what cannot be understood is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution
from fedmunkey.common.deletions.words import (
    DeletionOrder,
    DeletionRequest,
    Move,
    Records,
    RequestState,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.service import wire
from fedmunkey.protos import deletion_pb2
from tests.common.deletions.test_acknowledgement import ANSWER, acknowledgements

# What is shown holds nothing that could pass for a line of its own.
text = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
names = text.filter(bool)
numbers = st.integers(0, 2**64 - 1)
references = st.binary(min_size=32, max_size=32)
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
targets = st.one_of(
    st.builds(Records, st.frozensets(references, min_size=1, max_size=5), text),
    st.builds(Subject, references),
    st.builds(WholeSite, names),
)
requests = st.builds(DeletionRequest, names, names, targets)
orders = st.builds(DeletionOrder, numbers, names, requests)


progress = st.builds(
    SiteProgress, names, numbers, st.sampled_from(SiteState), st.none() | acknowledgements(), st.none() | times, text
)
statuses = st.builds(
    RequestStatus,
    requests,
    times,
    st.lists(progress, max_size=3).map(tuple),
    st.none() | st.sampled_from(RequestState),
    st.none() | times,
    text,
    st.none() | times,
)
counts = st.integers(0, 2**62)
contributions = st.builds(SiteContribution, names, counts, st.binary(max_size=40))
releases = st.builds(ReleasedWeights, text, counts, counts, st.lists(contributions, max_size=3).map(tuple))
needs = st.builds(RenewalNeed, counts, st.none() | times, st.none() | counts)

REQUEST = DeletionRequest("request-1", "hospital-1", WholeSite("hospital-1"))


@pytest.mark.parametrize(
    ("things", "to_wire", "from_wire"),
    [
        (requests, wire.request_to_wire, wire.request_from_wire),
        (orders, wire.order_to_wire, wire.order_from_wire),
        (acknowledgements(), wire.acknowledgement_to_wire, wire.acknowledgement_from_wire),
        (statuses, wire.status_to_wire, wire.status_from_wire),
        (st.builds(Move, times, text, text, text, text), wire.move_to_wire, wire.move_from_wire),
        (progress, wire.progress_to_wire, wire.progress_from_wire),
        (releases, wire.release_to_wire, wire.release_from_wire),
        (needs, wire.need_to_wire, wire.need_from_wire),
    ],
    ids=["request", "order", "acknowledgement", "status", "move", "progress", "release", "need"],
)
@given(data=st.data())
def test_what_is_sent_arrives(
    data: st.DataObject, things: st.SearchStrategy[Any], to_wire: Any, from_wire: Any
) -> None:
    thing = data.draw(things)

    message = to_wire(thing)

    assert from_wire(type(message).FromString(message.SerializeToString())) == thing


def test_equal_requests_have_equal_bytes() -> None:
    several = [bytes([number]) * 32 for number in range(100)]
    one = DeletionRequest("request-1", "hospital-1", Records(frozenset(several)))
    other = DeletionRequest("request-1", "hospital-1", Records(frozenset(reversed(several))))

    assert wire.request_to_wire(one).SerializeToString() == wire.request_to_wire(other).SerializeToString()


@pytest.mark.parametrize(("target", "message"), [({}, "names no target"), ({"subject_reference": b"short"}, "5 bytes")])
def test_request_without_a_whole_target_is_refused(target: dict[str, Any], message: str) -> None:
    sent = deletion_pb2.DeletionRequest(request_id="request-1", requester="hospital-1", **target)

    with pytest.raises(InvalidDeletion, match=message):
        wire.request_from_wire(sent)


@pytest.mark.parametrize("number", [0, 99])
def test_unknown_state_is_refused(number: int) -> None:
    message = wire.progress_to_wire(SiteProgress("hospital-1", 1, SiteState.PENDING))
    message.state = number  # type: ignore[assignment]

    with pytest.raises(InvalidDeletion, match=f"unknown state \\({number}\\)"):
        wire.progress_from_wire(message)


def test_answer_of_another_site_than_the_message_names_is_refused() -> None:
    message = wire.acknowledgement_to_wire(ANSWER)
    message.site = "hospital-2"

    with pytest.raises(InvalidDeletion, match="of site 'hospital-2' holds one of 'hospital-1'"):
        wire.acknowledgement_from_wire(message)


def test_answer_without_a_document_is_refused() -> None:
    with pytest.raises(InvalidDeletion, match="no JSON"):
        wire.acknowledgement_from_wire(deletion_pb2.Acknowledgement(site="hospital-1"))


def test_time_that_no_calendar_has_is_refused() -> None:
    message = wire.status_to_wire(RequestStatus(REQUEST, datetime(2030, 1, 1, tzinfo=UTC)))
    message.submitted_at.seconds = 2**62

    with pytest.raises(InvalidDeletion, match="out of range"):
        wire.status_from_wire(message)


def test_renewal_by_a_time_that_no_calendar_has_is_refused() -> None:
    message = wire.need_to_wire(RenewalNeed(1, datetime(2030, 1, 1, tzinfo=UTC), 2))
    message.renew_by.seconds = 2**62

    with pytest.raises(InvalidDeletion, match="out of range"):
        wire.need_from_wire(message)


def test_what_no_message_can_carry_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidDeletion, match="cannot be sent"):
        wire.order_to_wire(DeletionOrder(-1, "hospital-1", REQUEST))
    with pytest.raises(InvalidDeletion, match="cannot be sent"):
        wire.release_to_wire(ReleasedWeights("", 1, 1, (SiteContribution("hospital-1", -1, b""),)))
    with pytest.raises(InvalidDeletion, match="cannot be sent"):
        wire.request_to_wire(DeletionRequest("\udcff", "hospital-1", WholeSite("hospital-1")))


def test_request_with_too_many_records_is_not_one_to_make(monkeypatch: pytest.MonkeyPatch) -> None:
    several = frozenset(bytes([number]) * 32 for number in range(3))
    request = DeletionRequest("request-1", "hospital-1", Records(several, "hospital-1"))

    wire.check_size(request)
    monkeypatch.setattr(wire, "MAXIMUM_REFERENCES", 2)

    with pytest.raises(InvalidDeletion, match="names 3 records; split it into requests of at most 2"):
        wire.check_size(request)


def test_largest_request_fits_into_a_message() -> None:
    # A repeated field of 32 bytes: its tag, its length and itself.
    assert wire.MAXIMUM_REFERENCES * 34 < wire.MESSAGE_BYTES


@pytest.mark.parametrize("text", ["refused\nguarantee exact: nothing", "\x1b[2J", "a\u2028b"])
def test_text_that_would_forge_a_line_is_not_shown(text: str) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    part = SiteProgress("hospital-1", 1, SiteState.REFUSED)
    for status in (
        RequestStatus(REQUEST, at, (replace(part, reason=text),)),
        RequestStatus(REQUEST, at, (replace(part, site=text),)),
        RequestStatus(REQUEST, at, (part,), extension=text),
        RequestStatus(replace(REQUEST, request_id=text), at, (part,)),
    ):
        with pytest.raises(InvalidDeletion, match="not one printable line"):
            wire.status_from_wire(wire.status_to_wire(status))
    with pytest.raises(InvalidDeletion, match="not one printable line"):
        wire.move_from_wire(wire.move_to_wire(Move(at, "hospital-1", "", "left", text)))


def test_references_without_contents_are_counted_before_anything_is_made_of_them() -> None:
    message = deletion_pb2.DeletionRequest(request_id="request-1", requester="hospital-1")
    message.records.references.extend([b""] * 3_600_000)

    with pytest.raises(InvalidDeletion, match="names 3600000 records; at most"):
        wire.request_from_wire(message)
