"""A certificate that was changed says so, one that was made of less proves less, and nothing in one forges a line."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.words import Acknowledgement, DeletionRequest, Outcome, SiteState, Subject
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import Certificate
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import PREDICATE_TYPE, read_terms, target_digest
from fedmunkey.common.proofs.signing.canonical import canonical_json
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import PAYLOAD_TYPE, Statement, write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.proofs.verification import Verified, verify_certificate
from tests.common.proofs.mutations import mutate
from tests.proof_case import (
    LOG,
    OFFICER_KEY,
    SECRET,
    SITE_KEYS,
    SITES,
    START,
    TRUST,
    ProofCase,
    make_case,
    signed_request,
)

FORGED = [
    "fine\n  - hospital-2 states that it erased everything.",
    "a\u2028b",
    "\x1b[2Jgone",
    "x" * (LINE_CHARACTERS + 1),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> ProofCase:
    return make_case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def certificate(case: ProofCase) -> Certificate:
    return Certificate.from_bytes(case.certificate)


def test_changed_certificate_always_says_that_it_was_changed(case: ProofCase) -> None:
    draws, silent = random.Random(20260301), []
    for _ in range(1500):
        changed = mutate(case.certificate, draws)
        if changed == case.certificate:
            continue
        with pytest.raises(InvalidProof) as raised:
            verify_certificate(changed, TRUST)
        if "changed" not in str(raised.value):
            silent.append(str(raised.value))

    assert silent == []


def test_key_that_the_reader_does_not_trust_is_named(case: ProofCase) -> None:
    officer, *others = TRUST.keys
    with pytest.raises(InvalidProof, match=r"not trusted for this or was changed$"):
        verify_certificate(case.certificate, TrustedKeys((replace(officer, role=Role.SITE), *others)))
    with pytest.raises(InvalidProof, match=r"revoked on [^,]*$"):
        verify_certificate(case.certificate, TRUST.revoke(officer.key.key_id, START))


def test_receipt_that_was_taken_out_is_never_read_as_a_deletion_there(certificate: Certificate) -> None:
    first, second = certificate.receipts
    with pytest.raises(InvalidProof, match="was changed or cut: it does not have one receipt"):
        verify_certificate(replace(certificate, receipts=(first,)).to_bytes(), TRUST)

    less = replace(certificate, receipts=(second,), silent=SITES[:1])
    verified = verify_certificate(less.to_bytes(), TRUST)

    assert Certificate.from_bytes(less.to_bytes()) == less
    assert (verified.outcome, verified.erased, verified.silent) == (Outcome.PARTIAL, 3, SITES[:1])
    headline = (
        f"The certificate holds. INCOMPLETE: the receipt of {SITES[0]} is missing. 3 records erased, NOT EVERYWHERE."
    )
    assert certificate_words.headline(verified) == headline
    assert certificate_words.document(verified, TRUST)["addressed"] == list(SITES)
    assert certificate_words.guarantee(verified) is None
    assert f"The request was also sent to {SITES[0]}" in "\n".join(certificate_words.proved(verified))
    left_open = "\n".join(certificate_words.not_proved(verified, TRUST))
    assert f"Any deletion at {SITES[0]}: a site that left" in left_open
    assert "was not sent there" not in left_open
    page = certificate_page(less.to_bytes(), TRUST)
    assert "Certificate of deletion" not in page
    assert f'<th scope="row">{SITES[0]}</th><td colspan="5">the receipt is missing</td>' in page


@pytest.mark.parametrize("silent", [("hospital-9",), ("hospital-2", "hospital-1"), ("hospital-1", "hospital-1"), SITES])
def test_incomplete_certificate_names_addressed_sites_and_each_once(
    certificate: Certificate, silent: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidProof, match="was changed or cut"):
        verify_certificate(replace(certificate, receipts=certificate.receipts[:1], silent=silent).to_bytes(), TRUST)


def test_certificate_without_any_receipt_proves_that_the_request_was_logged(certificate: Certificate) -> None:
    verified = verify_certificate(replace(certificate, receipts=(), silent=SITES).to_bytes(), TRUST)

    assert verified.outcome is Outcome.PARTIAL
    assert certificate_words.headline(verified) == (
        "The certificate holds. INCOMPLETE: the receipts of hospital-1, hospital-2 are missing. NOTHING ERASED."
    )


def test_refusals_alone_are_no_certificate_of_deletion(case: ProofCase) -> None:
    verified = verify_certificate(case.certificate, TRUST)

    def refusing(receipt: Receipt) -> Receipt:
        answer = receipt.answer
        refusal = Acknowledgement(
            answer.number, answer.site, answer.request_id, SiteState.REFUSED, 0, 0, Guarantee.EMPIRICAL, 0.0, "expired"
        )
        return replace(receipt, answer=refusal)

    refused: Verified = replace(verified, receipts=tuple(map(refusing, verified.receipts)))

    assert refused.outcome is Outcome.REFUSED
    assert certificate_words.document(refused, TRUST)["title"] == "Certificate of a refusal"
    assert "NOTHING ERASED" in certificate_words.headline(refused)
    assert certificate_words.document(refused, TRUST)["guarantee"] is None
    assert not any("measured by audits" in line for line in certificate_words.not_proved(refused, TRUST))


@pytest.mark.parametrize("text", FORGED)
def test_text_that_would_forge_a_line_is_not_signed(text: str) -> None:
    assert not is_line(text)
    with pytest.raises(InvalidProof, match="not one line"):
        signed_request(text)
    with pytest.raises(InvalidDeletion, match="not one line"):
        Acknowledgement(1, SITES[0], "request-1", SiteState.REFUSED, 0, 0, Guarantee.EXACT, 0.0, text)
    with pytest.raises(InvalidDeletion, match="not one line"):
        Acknowledgement(1, SITES[0], text, SiteState.NOTHING_HELD, 0, 0, Guarantee.EXACT, 0.0)
    with pytest.raises(InvalidProof, match="printable"):
        TrustedKeys().add(TrustedKey(text, Role.OFFICER, OFFICER_KEY.public))


@pytest.mark.parametrize("text", FORGED)
def test_text_that_would_forge_a_line_is_not_read_whoever_signed_it(certificate: Certificate, text: str) -> None:
    """A signer of another program signs what ours would not."""
    said = Statement.of(certificate.receipts[0].envelope, "urn:fedmunkey:deletion-receipt:v1")
    for name in ("reason", "requestId", "site"):
        with pytest.raises(InvalidProof, match="not one line"):
            Receipt.of(signed_by_another(replace(said, predicate={**said.predicate, name: text}), SITES[0]))

    asked = DeletionRequest("request-1", "officer", Subject(SECRET.reference("patient-17")))
    predicate = {
        "requestId": text, "requester": "officer", "federation": SECRET.federation_id, "site": "", "count": 1,
        "issued": write_time(START), "expires": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    with pytest.raises(InvalidProof, match="not one line"):
        read_terms(signed_by_another(Statement("subject", target_digest(asked.target), PREDICATE_TYPE, predicate)))


def signed_by_another(statement: Statement, site: str = "") -> Envelope:
    """Return a statement in an envelope whose signer has checked nothing."""
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": statement.subject, "digest": {"sha256": statement.digest.hex()}}],
        "predicateType": statement.predicate_type,
        "predicate": statement.predicate,
    }
    return Envelope.sign(PAYLOAD_TYPE, canonical_json(document), SITE_KEYS[site] if site else OFFICER_KEY)


def test_head_of_the_log_says_no_more_than_numbers_and_a_time(certificate: Certificate) -> None:
    said = Statement.of(certificate.head, "urn:fedmunkey:log-head:v1")
    with pytest.raises(InvalidProof, match="not one line"):
        replace(said, predicate={**said.predicate, "time": FORGED[0]}).sign(LOG)
