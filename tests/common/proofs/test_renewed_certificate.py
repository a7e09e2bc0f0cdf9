"""A certificate shows that the shared weights were solved for anew, once they were, and by whom."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import RequestState, SiteState
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import Certificate, LoggedRenewal
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.contributions import Contribution, ReleaseNote
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import Statement, read_envelope
from fedmunkey.common.proofs.verification import verify_certificate
from fedmunkey.server.deletions.coordinator_proofs import CoordinatorProofs
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.common.proofs.mutations import mutate
from tests.common.proofs.test_verify_certificate import BLOCKER, ROOT
from tests.proof_case import (
    LOG,
    SITE_KEYS,
    SITES,
    START,
    STRANGER,
    TRUST,
    answered,
    contributed,
    open_coordinator,
    signed_request,
)
from tests.releases import give

FIRST, SECOND = SITES
DAY = timedelta(days=1)
BEFORE, AFTER = "11" * 32, "22" * 32
OPEN = "That the shared weights are renewed: this certificate shows no release without the records."


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Federation:
    """A coordinator of two sites whose weights were solved for once, before any deletion."""

    service: LedgerService
    clock: Clock

    def release(self, digest: str, *parts: SiteContribution, changed: int = 12) -> None:
        give(self.service, ReleasedWeights(digest, 100, changed, parts))

    def carry_out(self, request_id: str = "request-1", number: int = 1) -> None:
        self.service.submit(signed_request(request_id))
        for site in SITES:
            order = next(iter(self.service.watch(site, number - 1)))
            self.service.acknowledge(answered(order, None, self.clock.now, Guarantee.EXACT))

    def renew(self) -> None:
        self.release(AFTER, *(contributed(site, 1, self.clock.now) for site in SITES))

    @property
    def certificate(self) -> bytes:
        return self.service.certificate("request-1")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with contextlib.ExitStack() as stack:
        clock = Clock()
        federation = Federation(open_coordinator(stack, tmp_path, clock), clock)
        federation.release(BEFORE, *(contributed(site, 0) for site in SITES))
        yield federation


@pytest.fixture
def renewed(federation: Federation) -> bytes:
    """A certificate of a request that the weights were renewed for."""
    federation.carry_out()
    federation.renew()
    return federation.certificate


def open_careless(stack: contextlib.ExitStack, folder: Path) -> LedgerService:
    """Return a deletion service that keeps a log and trusts no keys."""
    ledger = open_coordinator(stack, folder).ledger
    log = TransparencyLog(ledger.engine, LOG, clock=Clock())
    service = LedgerService(ledger, proofs=CoordinatorProofs(log, clock=Clock()))
    return stack.enter_context(contextlib.closing(service))


def renewal_of(certificate: bytes) -> tuple[Certificate, LoggedRenewal]:
    read = Certificate.from_bytes(certificate)
    assert read.renewal is not None
    return read, read.renewal


def test_before_the_renewal_a_certificate_says_what_it_does_not_show(federation: Federation) -> None:
    federation.carry_out()
    certificate = federation.certificate

    verified = verify_certificate(certificate, TRUST)

    assert verified.renewal is None
    assert certificate_words.document(verified, TRUST)["renewal"] is None
    assert any(line.startswith(OPEN) for line in certificate_words.not_proved(verified, TRUST))
    assert "solved for anew" not in "\n".join(certificate_words.proved(verified))
    assert OPEN in certificate_page(certificate, TRUST)


def test_after_it_the_certificate_shows_release_sites_and_time(renewed: bytes) -> None:
    verified = verify_certificate(renewed, TRUST)

    assert verified.renewal is not None
    assert (verified.renewal.release, verified.renewal.sites, verified.renewal.time) == (AFTER, SITES, START)
    assert certificate_words.document(verified, TRUST)["renewal"] == {
        "release": AFTER,
        "sites": list(SITES),
        "time": "2026-03-01T12:00:00Z",
    }
    said = (
        f"The shared weights were solved for anew (release {AFTER[:16]}): hospital-1, hospital-2 signed, until "
        "2026-03-01T12:00:00Z, that they took part after erasing. 12 records of the federation had changed since the "
        "release before."
    )
    assert said in certificate_words.proved(verified)
    assert OPEN not in "\n".join(certificate_words.not_proved(verified, TRUST))
    page = certificate_page(renewed, TRUST)
    assert said in page
    assert OPEN not in page


def test_few_changed_records_are_counted_in_words(federation: Federation) -> None:
    federation.carry_out()
    federation.release(AFTER, *(contributed(site, 1) for site in SITES), changed=1)

    proved = certificate_words.proved(verify_certificate(federation.certificate, TRUST))

    assert any("1 record of the federation had changed" in line for line in proved)


def test_first_release_that_covers_the_orders_is_shown(federation: Federation) -> None:
    federation.carry_out()
    federation.release("33" * 32, contributed(FIRST, 1), contributed(SECOND, 0))
    assert verify_certificate(federation.certificate, TRUST).renewal is None
    federation.renew()
    federation.carry_out("request-2", 2)
    federation.release("44" * 32, *(contributed(site, 2) for site in SITES))

    (found,) = {verify_certificate(federation.certificate, TRUST).renewal}

    assert found is not None
    assert found.release == AFTER


def test_where_one_site_refused_the_others_renewal_is_shown(federation: Federation) -> None:
    federation.service.submit(signed_request())
    first, second = (next(iter(federation.service.watch(site, 0))) for site in SITES)
    federation.service.acknowledge(answered(first, None, START, Guarantee.EXACT))
    refusal = replace(
        *(answered(second, None, START, Guarantee.EXACT),),
        **{"state": SiteState.REFUSED, "records": 0, "entries": 0, "reason": "unknown key", "receipt": b""},
    )
    receipt = Receipt(refusal, OpenedRequest.of(second.request).digest, START, None, None)
    federation.service.acknowledge(replace(refusal, receipt=receipt.sign(SITE_KEYS[SECOND]).to_bytes()))
    federation.renew()

    verified = verify_certificate(federation.certificate, TRUST)

    assert federation.service.get("request-1").state is RequestState.PARTIAL
    assert verified.renewal is not None
    assert verified.renewal.sites == (FIRST,)


def test_changed_certificate_with_a_renewal_always_says_so(renewed: bytes) -> None:
    draws, silent = random.Random(20260302), []
    # That proves less, and says so.
    without = replace(Certificate.from_bytes(renewed), renewal=None).to_bytes()
    for _ in range(1500):
        changed = mutate(renewed, draws)
        if changed in (renewed, without):
            continue
        with pytest.raises(InvalidProof) as raised:
            verify_certificate(changed, TRUST)
        if "changed" not in str(raised.value):
            silent.append(str(raised.value))

    assert silent == []


def test_renewal_that_was_taken_out_is_not_claimed(renewed: bytes) -> None:
    certificate, _ = renewal_of(renewed)

    verified = verify_certificate(replace(certificate, renewal=None).to_bytes(), TRUST)

    assert any(line.startswith(OPEN) for line in certificate_words.not_proved(verified, TRUST))


def test_renewal_with_parts_taken_out_or_swapped_is_refused(renewed: bytes) -> None:
    certificate, renewal = renewal_of(renewed)
    one, other = renewal.contributions
    for contributions in ((), (one,), (other,), (one, one), (one, other, one)):
        with pytest.raises(InvalidProof, match="was changed or cut"):
            verify_certificate(
                replace(certificate, renewal=replace(renewal, contributions=contributions)).to_bytes(), TRUST
            )
    for note in (
        ReleaseNote("33" * 32, 12, renewal.note.contributions),
        ReleaseNote(AFTER, 500, renewal.note.contributions),
        ReleaseNote(AFTER, 12, {**renewal.note.contributions, FIRST: None}),
        ReleaseNote(AFTER, 12, {FIRST: renewal.note.contributions[FIRST]}),
    ):
        with pytest.raises(InvalidProof, match="was changed or cut"):
            verify_certificate(replace(certificate, renewal=replace(renewal, note=note)).to_bytes(), TRUST)


def test_contribution_that_the_release_was_not_solved_with_is_refused(renewed: bytes) -> None:
    certificate, renewal = renewal_of(renewed)
    # Signed by the site itself, but of another round.
    other = Contribution(FIRST, "2-round", 1, bytes(32), START).sign(SITE_KEYS[FIRST])
    changed = replace(renewal, contributions=(other, renewal.contributions[1]))

    with pytest.raises(InvalidProof, match="not the one that the log's release was solved with"):
        verify_certificate(replace(certificate, renewal=changed).to_bytes(), TRUST)


def test_release_that_does_not_cover_the_order_is_refused(federation: Federation) -> None:
    federation.carry_out()
    federation.carry_out("request-2", 2)
    federation.renew()
    read, renewal = renewal_of(federation.certificate)
    second = Certificate.from_bytes(federation.service.certificate("request-2"))
    assert (read.head, second.renewal) == (second.head, None)

    with pytest.raises(InvalidProof, match="by a site that contributed before it erased"):
        verify_certificate(replace(second, renewal=renewal).to_bytes(), TRUST)


def test_contribution_that_a_stranger_signed_proves_nothing_even_if_the_coordinator_took_it(tmp_path: Path) -> None:
    """A coordinator that trusts no keys takes what it is given; whoever reads the certificate does not."""
    with contextlib.ExitStack() as stack:
        federation = Federation(open_careless(stack, tmp_path), Clock())
        federation.release(BEFORE, *(contributed(site, 0) for site in SITES))
        federation.carry_out()
        federation.release(AFTER, contributed(FIRST, 1, key=STRANGER), contributed(SECOND, 1))

        with pytest.raises(InvalidProof, match="not trusted"):
            verify_certificate(federation.certificate, TRUST)


def test_unsigned_contribution_completes_a_request_and_proves_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        federation = Federation(open_careless(stack, tmp_path), Clock())
        federation.release(BEFORE, *(contributed(site, 0) for site in SITES))
        federation.carry_out()
        federation.release(AFTER, contributed(FIRST, 1), SiteContribution(SECOND, 1, b""))

        verified = verify_certificate(federation.certificate, TRUST)

        assert federation.service.get("request-1").state is RequestState.COMPLETED
        assert verified.renewal is None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (SiteContribution(FIRST, 0, b""), "not signed; give the site a key"),
        (SiteContribution(FIRST, 0, b"rubbish"), "not JSON"),
        (contributed(FIRST, 0, key=STRANGER), "not trusted"),
        (contributed(FIRST, 0, key=SITE_KEYS[SECOND]), "not trusted"),
        (contributed(FIRST, 0, named=SECOND, key=SITE_KEYS[SECOND]), "signed for something else"),
        (replace(contributed(FIRST, 0), last_order=1), "signed for something else"),
        (SiteContribution(FIRST, 0, contributed(FIRST, 0).statement[:-9]), "not JSON"),
    ],
)
def test_where_keys_are_trusted_each_site_signs_its_own_part(
    federation: Federation, part: SiteContribution, said: str
) -> None:
    federation.carry_out()

    with pytest.raises(InvalidDeletion, match=f"contribution of site 'hospital-1' is refused: .*{said}"):
        federation.release(AFTER, part, contributed(SECOND, 1))

    assert federation.service.get("request-1").state is RequestState.ERASED
    assert federation.service.renewal_need().entries == 4


def test_altered_statement_is_refused(federation: Federation) -> None:
    part = contributed(FIRST, 0)
    envelope = read_envelope(part.statement)
    altered = Envelope(envelope.payload_type, envelope.payload.replace(b"1-round", b"2-round"), envelope.signatures)
    assert altered.payload != envelope.payload

    with pytest.raises(InvalidDeletion, match=r"refused: .* was changed"):
        federation.release(AFTER, replace(part, statement=altered.to_bytes()))


def test_key_that_ended_after_the_release_was_seen_still_proves_it(federation: Federation) -> None:
    federation.carry_out()
    federation.renew()
    federation.service.log_update(0)
    ended = TRUST.end(SECOND, START + DAY)
    federation.clock.now = START + 300 * DAY

    renewal = verify_certificate(federation.certificate, ended).renewal

    assert renewal is not None
    assert renewal.sites == SITES


def test_contribution_that_is_logged_after_its_key_ended_proves_no_renewal(federation: Federation) -> None:
    federation.carry_out()
    federation.service.log_update(0)
    ended = TRUST.end(SECOND, START + DAY)
    federation.clock.now = START + 2 * DAY
    # Whoever has the key may have dated it back.
    federation.release(AFTER, contributed(FIRST, 1, federation.clock.now), contributed(SECOND, 1, START))
    certificate = federation.certificate

    verified = verify_certificate(certificate, ended)

    assert (verified.renewal, verified.undated) == (None, ())
    assert any(line.startswith(OPEN) for line in certificate_words.not_proved(verified, ended))
    assert verify_certificate(certificate, TRUST).renewal is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": "release"},
        {"predicate": {"site": FIRST, "round": "1", "lastOrder": -1, "time": "2026-03-01T12:00:00Z"}},
        {"predicate": {"site": "", "round": "1", "lastOrder": 1, "time": "2026-03-01T12:00:00Z"}},
        {"predicate": {"site": FIRST, "round": "1", "lastOrder": "1", "time": "2026-03-01T12:00:00Z"}},
        {"predicate": {"site": FIRST, "round": "1", "lastOrder": True, "time": "2026-03-01T12:00:00Z"}},
        {"predicate": {"site": FIRST, "round": "1", "time": "2026-03-01T12:00:00Z"}},
        {"predicate": {"site": FIRST, "round": "1", "lastOrder": 1, "time": "yesterday"}},
        {"predicate_type": "urn:fedmunkey:deletion-receipt:v1"},
    ],
)
def test_contribution_of_another_form_is_not_read(changed: dict[str, object]) -> None:
    predicate = {"site": FIRST, "round": "1-round", "lastOrder": 1, "time": "2026-03-01T12:00:00Z"}
    good = Statement("contribution", bytes(32), "urn:fedmunkey:contribution:v1", predicate)
    assert Contribution.of(good.sign(STRANGER)).last_order == 1

    with pytest.raises(InvalidProof):
        Contribution.of(replace(good, **changed).sign(STRANGER))  # type: ignore[arg-type]


@pytest.mark.processes
def test_verifier_reads_a_renewal_with_nothing_but_two_packages(renewed: bytes, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_bytes(renewed)
    TRUST.write(tmp_path / "keys.json")
    words = [str(tmp_path / "certificate.json"), "--keys", str(tmp_path / "keys.json"), "--json"]

    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", BLOCKER, *words], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["renewal"]["release"] == AFTER


def test_envelope_of_a_contribution_is_the_bytes_that_the_log_names(renewed: bytes) -> None:
    _, renewal = renewal_of(renewed)

    assert all(isinstance(envelope, Envelope) for envelope in renewal.contributions)
    assert [envelope.to_bytes() for envelope in renewal.contributions] == [
        contributed(site, 1).statement for site in SITES
    ]
