"""Requests of a run are signed as people sign them, and told to be good as services and sites tell it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.client.deletions.order_check import check_signer
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.simulations.faults.signers import TRUST, Signers

NOW = datetime(2030, 1, 2, tzinfo=UTC)
SITE = "hospital-1"
BY_OFFICER = DeletionRequest("request-1", OFFICER, Subject(bytes(32)))
BY_SITE = DeletionRequest("request-2", SITE, WholeSite(SITE))


@pytest.fixture
def signers(tmp_path: Path) -> Signers:
    folder = SiteFolder(tmp_path / SITE)
    folder.path.mkdir()
    return Signers.make(tmp_path, {SITE: folder}, FederationSecret(bytes(32)))


@pytest.mark.parametrize("request_", [BY_OFFICER, BY_SITE])
def test_coordinator_believes_what_is_signed_until_it_expires(signers: Signers, request_: DeletionRequest) -> None:
    signed = signers.sign(request_, NOW)

    check_signer(OpenedRequest.of(signed), TrustedKeys.read(signers.folder / TRUST), heard=NOW)
    assert signers.is_good(signed, NOW + timedelta(days=89))
    assert not signers.is_good(signed, NOW + timedelta(days=91))


def test_request_is_not_good_once_the_officer_has_another_key(signers: Signers) -> None:
    signed = signers.sign(BY_OFFICER, NOW)

    SigningKey.generate().write_pair(signers.next_officer())

    assert not signers.is_good(signed, NOW)
    assert signers.is_good(signers.sign(BY_OFFICER, NOW), NOW)


def test_request_is_signed_again_as_it_was_by_a_receipt_alone(signers: Signers) -> None:
    signed = signers.sign(BY_OFFICER, NOW)
    opened = OpenedRequest.of(signed)
    answer = Acknowledgement(1, SITE, signed.request_id, SiteState.ERASED, 1, 1, Guarantee.EMPIRICAL, 0.0)
    _, terms = opened.signed()
    receipt = Receipt(answer, opened.digest, NOW, bytes(32), None)
    receipt = replace(receipt, asked=(terms.issued, terms.expires))
    envelope = receipt.sign(SigningKey.read(signers.sites[SITE].signing_key)).to_bytes()
    SigningKey.generate().write_pair(signers.next_officer())
    later = NOW + timedelta(days=200)

    again = signers.sign_again(signed, [envelope], later)

    assert again is not None
    assert OpenedRequest.of(again).digest == opened.digest
    assert signers.sign_again(signed, [], later) is None
