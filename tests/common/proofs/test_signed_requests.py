from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records, Subject, Target, WholeSite
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signed_requests import OpenedRequest, target_digest
from tests.proof_case import SECRET, START, signed_request

REFERENCE = bytes(range(32))
TARGETS: list[Target] = [
    Subject(REFERENCE),
    Records(frozenset({REFERENCE})),
    Records(frozenset({REFERENCE}), "hospital-1"),
    Records(frozenset({REFERENCE, bytes(32)}), "hospital-1"),
    WholeSite("hospital-1"),
    WholeSite("hospital-2"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_signature_says_what_was_asked_for_without_naming_it(target: Target) -> None:
    request = signed_request(target=target)

    _, terms = OpenedRequest.of(request).signed()

    assert (terms.request_id, terms.requester) == ("request-1", OFFICER)
    assert (terms.issued, terms.expires) == (START, START + timedelta(days=90))
    assert terms.federation == SECRET.federation_id
    assert REFERENCE.hex() not in request.signature.decode()
    assert REFERENCE not in request.signature


def test_every_target_has_its_own_digest() -> None:
    assert len({target_digest(target) for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_changed_target_is_noticed(target: Target) -> None:
    request = signed_request(target=target)

    for other in TARGETS:
        if other != target:
            with pytest.raises(InvalidProof, match="altered: the target"):
                OpenedRequest.of(replace(request, target=other)).signed()


def test_changed_id_or_requester_is_noticed() -> None:
    request = signed_request()

    for changed, fault in (
        (replace(request, request_id="request-2"), "altered: the request id"),
        (replace(request, requester="hospital-1"), "altered: the requester"),
        (replace(request, signature=b""), "unsigned"),
    ):
        with pytest.raises(InvalidProof, match=fault):
            OpenedRequest.of(changed).signed()


def test_request_is_good_from_its_date_until_it_expires() -> None:
    _, terms = OpenedRequest.of(signed_request(days=1)).signed()

    terms.check_time(START)
    terms.check_time(START - timedelta(minutes=5))
    terms.check_time(START + timedelta(days=1, seconds=-1))
    with pytest.raises(InvalidProof, match="expired"):
        terms.check_time(START + timedelta(days=1))
    with pytest.raises(InvalidProof, match="future"):
        terms.check_time(START - timedelta(minutes=6))


def test_request_that_expires_before_it_is_issued_is_none() -> None:
    with pytest.raises(InvalidProof, match="before it is issued"):
        OpenedRequest.of(signed_request(days=0)).signed()


def test_digest_is_of_what_was_signed() -> None:
    first, later = signed_request(), signed_request(issued=START + timedelta(days=1))
    unsigned = DeletionRequest(first.request_id, first.requester, first.target)

    digests = {OpenedRequest.of(request).digest for request in (first, later, unsigned)}

    assert len(digests) == 3
    assert OpenedRequest.of(replace(first, signature=b"rubbish")).digest == OpenedRequest.of(unsigned).digest
    assert OpenedRequest.of(replace(unsigned, request_id="request-2")).digest != OpenedRequest.of(unsigned).digest
    assert first == later == unsigned


def test_unsigned_request_of_the_officer_keeps_the_digest_of_earlier_versions() -> None:
    request = DeletionRequest("request-1", OFFICER, WholeSite("hospital-1"))

    assert OpenedRequest.of(request).digest.hex() == "4889b7eb59e0f881ee9d9adc1d8713bc16210a197264a1749e955602c4caa52c"


def test_federation_is_named_by_its_secret() -> None:
    other = FederationSecret(bytes(32))

    assert SECRET.federation_id == FederationSecret(bytes(range(32))).federation_id != other.federation_id
    assert len(other.federation_id) == 32
