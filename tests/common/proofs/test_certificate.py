from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import OFFICER, SiteState
from fedmunkey.common.errors import FedmunkeyError, InvalidProof
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import Certificate
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.log_heads import LogHead, LogProof, receipt_leaf, request_leaf
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import verify_certificate
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.transparency_log.leaves import Leaf, LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.common.proofs.mutations import changeables, mutate
from tests.proof_case import LOG, SECRET, SITES, START, STRANGER, TRUST, ProofCase, make_case


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> ProofCase:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def certificate(case: ProofCase) -> Certificate:
    return Certificate.from_bytes(case.certificate)


def test_certificate_proves_who_asked_and_what_each_site_answered(case: ProofCase) -> None:
    verified = verify_certificate(case.certificate, TRUST)

    assert (verified.terms.request_id, verified.terms.requester) == ("request-2", OFFICER)
    assert [key.name for key in verified.requested_by] == ["officer-1"]
    assert [receipt.answer.site for receipt in verified.receipts] == list(SITES)
    assert [receipt.answer.entries for receipt in verified.receipts] == [2, 2]
    assert [receipt.witnessed is not None for receipt in verified.receipts] == [True, False]
    assert verified.head.size == 9
    assert certificate_words.guarantee(verified) is Guarantee.CERTIFIED


def test_certificate_names_no_record_and_no_patient(case: ProofCase) -> None:
    reference = SECRET.reference("patient-17")

    assert b"patient-17" not in case.certificate
    assert reference.hex().encode() not in case.certificate
    for envelope in Certificate.from_bytes(case.certificate).receipts:
        assert reference.hex().encode() not in envelope.envelope.payload


def test_certificate_survives_its_bytes(case: ProofCase, certificate: Certificate) -> None:
    assert certificate.to_bytes() == case.certificate


def test_certificate_with_any_byte_changed_is_refused(case: ProofCase) -> None:
    refused = 0
    for place, byte in enumerate(case.certificate):
        changed = case.certificate[:place] + bytes([byte ^ (1 + place % 255)]) + case.certificate[place + 1 :]
        try:
            verify_certificate(changed, TRUST)
        except InvalidProof:
            refused += 1

    assert refused == len(case.certificate) > 4000


def test_changed_proofs_are_never_believed_and_never_crash(case: ProofCase) -> None:
    """The same changes each time; where `MUNKEY_MUTATIONS` says how many, others each time."""
    asked = os.environ.get("MUNKEY_MUTATIONS", "")
    count, seed = (int(asked), int.from_bytes(os.urandom(8), "big")) if asked else (3000, 20260301)
    draws, things = random.Random(seed), list(changeables(case).items())
    bad, refused = [], 0
    for number in range(count):
        name, (original, believe) = things[number % len(things)]
        changed = mutate(original, draws)
        try:
            if changed != original and believe(changed):
                bad.append(f"{name}: believed {changed!r}")
        except FedmunkeyError:
            refused += 1
        except Exception as error:
            bad.append(f"{name}: {error!r} for {changed!r}")

    assert bad == [], f"seed {seed}"
    assert refused > count / 2


def test_every_key_must_be_trusted(case: ProofCase) -> None:
    for missing in TRUST.keys:
        with pytest.raises(InvalidProof, match="not trusted"):
            verify_certificate(case.certificate, TrustedKeys(tuple(key for key in TRUST.keys if key is not missing)))
        with pytest.raises(InvalidProof, match="revoked"):
            verify_certificate(case.certificate, TRUST.revoke(missing.key.key_id, START))
        late = tuple(replace(key, start=START + timedelta(days=1)) if key is missing else key for key in TRUST.keys)
        with pytest.raises(InvalidProof, match="valid only from"):
            verify_certificate(case.certificate, TrustedKeys(late))


def test_receipt_cannot_be_left_out_doubled_or_exchanged(certificate: Certificate) -> None:
    first, second = certificate.receipts
    for receipts in ((first,), (), (first, first), (second, first), (first, second, second)):
        with pytest.raises(InvalidProof):
            verify_certificate(replace(certificate, receipts=receipts).to_bytes(), TRUST)


def test_site_cannot_be_left_out(certificate: Certificate) -> None:
    """The log holds which sites a request was sent to, so a refusal or a missing answer cannot be hidden."""
    changed = replace(certificate, sites=certificate.sites[:1], receipts=certificate.receipts[:1])

    with pytest.raises(InvalidProof, match="inclusion proof"):
        verify_certificate(changed.to_bytes(), TRUST)


def test_head_of_another_log_does_not_fit(certificate: Certificate) -> None:
    head = LogHead.of(certificate.head)
    for other in (replace(head, size=4), replace(head, size=1000), replace(head, root=bytes(32))):
        with pytest.raises(InvalidProof):
            verify_certificate(replace(certificate, head=other.sign(LOG)).to_bytes(), TRUST)
    with pytest.raises(InvalidProof, match="not trusted"):
        verify_certificate(replace(certificate, head=head.sign(STRANGER)).to_bytes(), TRUST)


def test_log_that_forked_after_a_site_had_seen_it_is_noticed(case: ProofCase, tmp_path: Path) -> None:
    """A coordinator that logs the same request and receipts again, in another history, cannot certify with it."""
    kept = Certificate.from_bytes(case.certificate)
    with Ledger(tmp_path / "forked.sqlite") as ledger:
        log = TransparencyLog(ledger.engine, LOG, clock=lambda: START)
        # As many leaves before it as there were when the site looked.
        log.extend([Leaf(LeafKind.REQUEST, f"other-{number}", b"x%d" % number) for number in range(4)])
        log.extend([Leaf(LeafKind.REQUEST, "request-2", request_leaf(kept.request.to_bytes(), kept.sites))])
        receipts = [logged.envelope.to_bytes() for logged in kept.receipts]
        log.extend([Leaf(LeafKind.RECEIPT, f"receipt-{n}", receipt_leaf(data)) for n, data in enumerate(receipts)])
        logged = []
        for number, receipt in enumerate(kept.receipts):
            seen = 4 if number == 0 else 0
            logged.append(replace(receipt, proof=log.prove(5 + number, 7), consistency=log.prove_extension(seen, 7)))
        forked = replace(kept, proof=log.prove(4, 7), receipts=tuple(logged), head=log.head())

    with pytest.raises(InvalidProof, match="consistency proof"):
        verify_certificate(forked.to_bytes(), TRUST)


@pytest.mark.parametrize("number", [-1, 0, 2, 10**6, 2**53])
def test_wrong_place_in_the_log_is_refused(certificate: Certificate, number: int) -> None:
    changed = replace(certificate, proof=LogProof(number, certificate.proof.path))

    with pytest.raises(InvalidProof):
        verify_certificate(changed.to_bytes(), TRUST)


def test_words_say_what_is_proved_and_what_is_not(case: ProofCase) -> None:
    verified = verify_certificate(case.certificate, TRUST)
    proved = "\n".join(certificate_words.proved(verified))
    open_ = "\n".join(certificate_words.not_proved(verified, TRUST))

    assert "data-protection officer (officer-1, key" in proved
    for site in SITES:
        assert f"{site} states, on 2026-03-01T12:00:00Z, that it erased 3 records, 2 entries" in proved
    assert "guarantee certified" in proved
    assert "epsilon 1.25 for a record, 3.00 for 2 records of one subject, delta 1e-05" in proved
    assert "extends what hospital-1 had seen" in proved
    assert "Whether a site told the truth" in open_
    assert "epsilon and delta allow" in open_


def test_words_name_sites_that_were_not_asked_and_those_that_refused(case: ProofCase) -> None:
    verified = verify_certificate(case.certificate, TRUST)
    first, second = verified.receipts
    refusal = replace(
        first.answer,
        state=SiteState.REFUSED,
        records=0,
        entries=0,
        reason="expired",
        guarantee=Guarantee.EMPIRICAL,
        record_loss=None,
        subject_loss=None,
    )
    without = replace(verified, receipts=(replace(first, answer=refusal),), signed_by=verified.signed_by[:1])

    open_ = "\n".join(certificate_words.not_proved(without, TRUST))

    assert "that it refused and deleted nothing: expired." in "\n".join(certificate_words.proved(without))
    assert "Any deletion at hospital-1" in open_
    assert f"Anything about {second.answer.site}" in open_


def test_page_stands_alone_and_says_the_same(case: ProofCase) -> None:
    page = certificate_page(case.certificate, TRUST)

    assert "request-2" in page
    assert page.count("<li>") == len(certificate_words.proved(verify_certificate(case.certificate, TRUST))) + len(
        certificate_words.not_proved(verify_certificate(case.certificate, TRUST), TRUST)
    )
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not any(word in page for word in ("src=", "href=", "<script", "@import", "url("))
    with pytest.raises(InvalidProof):
        certificate_page(case.certificate + b" ", TRUST)


def test_document_is_json(case: ProofCase) -> None:
    about = json.loads(json.dumps(certificate_words.document(verify_certificate(case.certificate, TRUST), TRUST)))

    assert [site["state"] for site in about["sites"]] == ["erased", "erased"]
    assert about["log"]["size"] == 9
    assert about["sites"][0]["record_loss"] == {"epsilon": 1.25, "delta": 1e-05, "records": 1}
