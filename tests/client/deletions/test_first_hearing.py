"""What a site hears for the first time: keys that have ended, requests that live too long, too few officers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from fedmunkey.client.deletions.order_check import WHOLE_SITE_DAYS
from fedmunkey.client.deletions.site_proofs import SiteProofs
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionOrder, DeletionRequest, Records, SiteState, Subject, WholeSite
from fedmunkey.common.proofs.signed_requests import MAXIMUM_DAYS
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey
from tests.client.conftest import record_id, subject_id
from tests.proof_case import OFFICER_KEY, SECRET, SITE_KEYS, SITES, START, STRANGER, TRUST, signed_request

SITE = SITES[0]
DAY = timedelta(days=1)
NOW = START + 10 * DAY
SECOND = SigningKey.from_seed(bytes([7]) * 32)
TWO = TRUST.add(TrustedKey("officer-2", Role.OFFICER, SECOND.public)).require(2)


@pytest.fixture
def secret() -> FederationSecret:
    """The fixtures of this folder enrol with the case's secret."""
    return SECRET


@pytest.fixture
def site(store: KeyStore, fill: Callable[..., object]) -> SiteFolder:
    """A site with ten records, keys and trust."""
    fill(store, range(10))
    folder = SiteFolder(store.path.parent)
    SITE_KEYS[SITE].write(folder.signing_key)
    SECRET.write(folder.secret)
    TRUST.write(folder.trust)
    return folder


def hear(store: KeyStore, *requests: DeletionRequest) -> list[tuple[SiteState, str]]:
    proofs = SiteProofs(store, clock=lambda: NOW)
    orders = [DeletionOrder(number, SITE, request) for number, request in enumerate(requests, 1)]
    return [(answer.state, answer.reason) for answer in proofs.carry_out_all(orders)]


def subject(number: int) -> Subject:
    return Subject(SECRET.reference(subject_id(number)))


def test_ended_key_is_heard_no_more_and_what_it_had_asked_for_keeps_its_answer(
    store: KeyStore, site: SiteFolder
) -> None:
    before = signed_request("request-1", subject(1))
    assert hear(store, before) == [(SiteState.ERASED, "")]

    TRUST.end("officer-1", NOW).write(site.trust)
    dated_back = signed_request("request-2", subject(2), issued=START, days=300)
    answers = hear(store, before, dated_back)

    assert answers[0] == (SiteState.ERASED, "")
    assert answers[1][0] is SiteState.REFUSED
    assert "officer-1 expired on 2026-03-11" in answers[1][1]


def test_request_that_lives_too_long_is_refused(store: KeyStore, site: SiteFolder) -> None:
    assert site.trust.exists()

    ((state, reason),) = hear(store, signed_request(target=subject(1), days=MAXIMUM_DAYS + 1))

    assert state is SiteState.REFUSED
    assert reason.startswith("valid for too long")


def countersigned(request: DeletionRequest, *keys: SigningKey) -> DeletionRequest:
    envelope = read_envelope(request.signature)
    for key in keys:
        envelope = envelope.countersign(key)
    return replace(request, signature=envelope.to_bytes())


WHOLE = signed_request(target=WholeSite(SITE))


def test_whole_site_is_forgotten_for_as_many_officers_as_it_asks_for(store: KeyStore, site: SiteFolder) -> None:
    TWO.write(site.trust)

    assert hear(store, countersigned(WHOLE, SECOND)) == [(SiteState.ERASED, "")]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (WHOLE, "signed by too few"),
        (countersigned(WHOLE, STRANGER), "not trusted"),
        (signed_request(target=WholeSite(SITE), requester=SITE, key=SITE_KEYS[SITE]), "signed by too few"),
    ],
)
def test_whole_site_is_not_forgotten_for_fewer(
    store: KeyStore, site: SiteFolder, request_: DeletionRequest, reason: str
) -> None:
    TWO.write(site.trust)

    ((state, said),) = hear(store, request_)

    assert state is SiteState.REFUSED
    assert reason in said


def test_two_keys_of_one_officer_are_one_officer(store: KeyStore, site: SiteFolder) -> None:
    TWO.add(TrustedKey("officer-1", Role.OFFICER, STRANGER.public)).write(site.trust)

    ((state, reason),) = hear(store, countersigned(WHOLE, STRANGER))

    assert state is SiteState.REFUSED
    assert "2 officers must ask for everything that this site holds, and 1 did" in reason


def test_one_officer_is_enough_for_a_patient(store: KeyStore, site: SiteFolder) -> None:
    TWO.write(site.trust)

    assert hear(store, signed_request(target=subject(1), key=OFFICER_KEY)) == [(SiteState.ERASED, "")]


def records(*numbers: int) -> Records:
    return Records(frozenset(SECRET.reference(record_id(number)) for number in numbers), SITE)


def test_records_that_are_nearly_all_need_as_many_officers_as_the_whole_site(store: KeyStore, site: SiteFolder) -> None:
    TWO.write(site.trust)
    nearly_all = signed_request("request-1", records(*range(6)))

    ((state, reason),) = hear(store, nearly_all)
    assert state is SiteState.REFUSED
    assert reason.startswith("too much for too few")
    assert "6 of 10 records" in reason

    both = signed_request("request-2", records(*range(6)))
    assert hear(store, nearly_all, countersigned(both, SECOND))[1] == (SiteState.ERASED, "")


@pytest.mark.parametrize("together", [True, False])
def test_many_small_orders_take_no_more_than_one_large_one(store: KeyStore, site: SiteFolder, together: bool) -> None:
    TWO.write(site.trust)
    asked = [signed_request(f"request-{number}", records(2 * number, 2 * number + 1)) for number in range(3)]

    if not together:
        hear(store, *asked[:2])
    states = [state for state, _ in hear(store, *asked)]

    assert states == [SiteState.ERASED, SiteState.ERASED, SiteState.REFUSED]


def test_what_was_erased_long_ago_does_not_count(store: KeyStore, site: SiteFolder) -> None:
    TWO.write(site.trust)
    first = signed_request("request-1", records(*range(4)), days=300)
    hear(store, first)
    later = NOW + timedelta(days=WHOLE_SITE_DAYS + 1)

    second = DeletionOrder(2, SITE, signed_request("request-2", records(4, 5, 6), days=300))
    answer = SiteProofs(store, clock=lambda: later).carry_out(second)

    assert answer.state is SiteState.ERASED


def test_records_need_one_officer_where_the_site_asks_for_one(store: KeyStore, site: SiteFolder) -> None:
    assert site.trust.exists()

    assert hear(store, signed_request(target=records(*range(10)))) == [(SiteState.ERASED, "")]
