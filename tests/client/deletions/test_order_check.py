from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fedmunkey.client.deletions.order_check import check_order
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import (
    FORMER_OFFICER,
    OFFICER,
    DeletionOrder,
    DeletionRequest,
    Records,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signed_requests import PREDICATE_TYPE, OpenedRequest, target_digest
from fedmunkey.common.proofs.signing.statements import Statement, write_time
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from tests.proof_case import (
    LOG,
    OFFICER_KEY,
    SECRET,
    SITE_KEYS,
    SITES,
    START,
    STRANGER,
    TRUST,
    signed_request,
)

FIRST, SECOND = SITES
REFERENCE = SECRET.reference("patient-17")
NOW = START + timedelta(days=30)


def check(request: DeletionRequest, *, trust: TrustedKeys = TRUST, site: str = FIRST) -> None:
    order = DeletionOrder(4, site, request)
    opened = OpenedRequest.of(request)
    check_order(order, opened, trust=trust, federation=SECRET.federation_id, now=NOW)


def of_site(target: Records | Subject | WholeSite, site: str = FIRST) -> DeletionRequest:
    return signed_request(target=target, requester=site, key=SITE_KEYS[site])


RECORDS = frozenset({REFERENCE})


@pytest.mark.parametrize(
    "request_",
    [
        signed_request(),
        signed_request(target=Records(RECORDS)),
        signed_request(target=Records(RECORDS, FIRST)),
        signed_request(target=WholeSite(FIRST)),
        of_site(Subject(REFERENCE)),
        of_site(Records(RECORDS, FIRST)),
        of_site(WholeSite(FIRST)),
    ],
)
def test_whoever_may_ask_is_heard_until_he_is_not_trusted_any_more(request_: DeletionRequest) -> None:
    check(request_)

    nobody = TrustedKeys(tuple(replace(key, revoked=NOW) for key in TRUST.keys))
    with pytest.raises(InvalidProof, match="was revoked"):
        check(request_, trust=nobody)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (replace(signed_request(), signature=b""), "^unsigned"),
        (replace(signed_request(), target=Subject(bytes(32))), "^altered: the target"),
        (replace(signed_request(target=Records(RECORDS)), target=Records(RECORDS, FIRST)), "^altered: the target"),
        (replace(signed_request(), requester=FIRST), "^altered: the requester"),
        (replace(signed_request(), request_id="request-2"), "^altered: the request id"),
        (signed_request(key=STRANGER), "not trusted"),
        (signed_request(key=LOG), "not trusted"),
        (signed_request(key=SITE_KEYS[FIRST]), "not trusted"),
        (signed_request(target=WholeSite(FIRST), requester=FIRST, key=SITE_KEYS[SECOND]), "not trusted"),
        (signed_request(target=WholeSite(FIRST), requester="coordinator", key=LOG), "not trusted"),
        (signed_request(days=30), "^expired"),
        (signed_request(issued=NOW + timedelta(hours=1)), "^dated in the future"),
        (signed_request(secret=FederationSecret(bytes(32))), "^meant for another federation"),
        (signed_request(target=WholeSite(SECOND)), "^out of scope"),
        (signed_request(target=Records(RECORDS, SECOND)), "^out of scope"),
        (of_site(Subject(REFERENCE), SECOND), "^out of scope"),
        (of_site(Records(RECORDS)), "^out of scope"),
        (of_site(WholeSite(SECOND), SECOND), "^out of scope"),
    ],
)
def test_anything_else_is_refused_with_its_own_reason(request_: DeletionRequest, reason: str) -> None:
    with pytest.raises(InvalidProof, match=reason) as caught:
        check(request_)

    assert REFERENCE.hex() not in str(caught.value)
    assert str(caught.value).isprintable()


def test_officer_is_heard_under_its_former_name() -> None:
    """The signed statement is one of version 0.1, before requests named the officer `officer`."""
    request = DeletionRequest("request-1", FORMER_OFFICER, Subject(REFERENCE))
    predicate = {
        **{"requestId": "request-1", "requester": FORMER_OFFICER, "federation": SECRET.federation_id},
        **{"site": "", "count": 1, "issued": write_time(START), "expires": write_time(NOW + timedelta(days=1))},
    }
    statement = Statement("subject", target_digest(request.target), PREDICATE_TYPE, predicate)
    signed = replace(request, signature=statement.sign(OFFICER_KEY).to_bytes())

    check(signed)
    with pytest.raises(InvalidProof, match="not trusted"):
        check(replace(request, signature=statement.sign(SITE_KEYS[FIRST]).to_bytes()))
    assert signed.requester == OFFICER


def test_signature_of_another_request_does_not_fit() -> None:
    first, second = signed_request("request-1"), signed_request("request-2", Subject(bytes(32)))

    with pytest.raises(InvalidProof, match="altered"):
        check(replace(first, signature=second.signature))


def test_revoked_expired_and_future_keys_sign_nothing() -> None:
    (officer, *_), day = TRUST.keys, timedelta(days=1)
    for changed, reason in (
        (replace(officer, revoked=NOW), "was revoked"),
        (replace(officer, end=START), "expired on"),
        (replace(officer, start=START + day), "valid only from"),
    ):
        trust = TrustedKeys((changed, *TRUST.keys[1:]))
        with pytest.raises(InvalidProof, match=reason):
            check(signed_request(), trust=trust)


def test_several_officers_have_a_key_each() -> None:
    with pytest.raises(InvalidProof, match="not trusted"):
        check(signed_request(key=STRANGER))

    trust = TRUST.add(replace(TRUST.keys[0], name="officer-2", key=STRANGER.public))

    check(signed_request(key=STRANGER), trust=trust)
    check(signed_request(key=OFFICER_KEY), trust=trust)


def test_requester_is_the_officer_by_default() -> None:
    assert signed_request().requester == OFFICER
