"""Keys that end, requests that live too long, and how many officers a site asks for, in a file of trusted keys."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import Outcome
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.certificate import Certificate, FirstHead
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.log_heads import LogHead
from fedmunkey.common.proofs.signed_requests import MAXIMUM_DAYS, OpenedRequest
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.proofs.verification import verify_certificate, verify_requester
from fedmunkey.server.deletions.ledger_service import LedgerService
from tests.proof_case import (
    LOG,
    OFFICER_KEY,
    SITES,
    START,
    STRANGER,
    TRUST,
    answered,
    make_case,
    open_coordinator,
    signed_request,
)

DAY = timedelta(days=1)
ENDED = TRUST.end("officer-1", START + DAY)


def test_certificate_from_before_a_key_ended_holds_and_after_it_was_revoked_does_not(tmp_path: Path) -> None:
    certificate = make_case(tmp_path).certificate
    ended = ENDED
    for site in SITES:
        ended = ended.end(site, START + DAY)

    assert len(verify_certificate(certificate, ended).receipts) == len(SITES)
    with pytest.raises(InvalidProof, match="was revoked"):
        verify_certificate(certificate, TRUST.revoke("officer-1", START + DAY))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Backdated:
    """A request at a coordinator whose clock goes; receipts bear whatever date they are given."""

    service: LedgerService
    clock: Clock

    def submit(self, after: timedelta) -> None:
        self.clock.now = START + after
        self.service.submit(signed_request(issued=self.clock.now))

    def answer(self, site: str, dated: timedelta, logged: timedelta, *, witnessed: bool = True) -> None:
        self.clock.now = START + logged
        (order,) = self.service.watch(site, 0)
        self.service.acknowledge(answered(order, None, START + dated))
        if witnessed:
            self.service.log_update(0)

    def certificate(self, after: timedelta) -> bytes:
        self.clock.now = START + after
        return self.service.certificate("request-1")


@pytest.fixture
def backdated(tmp_path: Path) -> Iterator[Backdated]:
    with contextlib.ExitStack() as stack:
        clock = Clock()
        yield Backdated(open_coordinator(stack, tmp_path, clock), clock)


FIRST, SECOND = SITES
SECOND_ENDED = TRUST.end(SECOND, START + 2 * DAY)


def test_receipt_that_a_head_held_before_its_key_ended_counts_for_ever(backdated: Backdated) -> None:
    backdated.submit(0 * DAY)
    backdated.answer(FIRST, 1 * DAY, 1 * DAY)
    backdated.answer(SECOND, 1 * DAY, 1 * DAY)

    verified = verify_certificate(backdated.certificate(300 * DAY), SECOND_ENDED)

    assert (verified.outcome, verified.erased, verified.undated) == (Outcome.ERASED, 6, ())
    assert verified.head.time == START + DAY


def test_receipt_that_is_logged_after_its_key_ended_counts_for_nothing(backdated: Backdated) -> None:
    backdated.submit(0 * DAY)
    backdated.answer(FIRST, 1 * DAY, 1 * DAY)
    backdated.answer(SECOND, 1 * DAY, 5 * DAY)
    certificate = backdated.certificate(6 * DAY)

    verified = verify_certificate(certificate, SECOND_ENDED)

    assert (verified.outcome, verified.erased, verified.undated) == (Outcome.PARTIAL, 3, (SECOND,))
    assert "NOT EVERYWHERE: the receipt of hospital-2 counts for nothing" in certificate_words.headline(verified)
    assert f"{SECOND} states" not in "\n".join(certificate_words.proved(verified))
    assert "Anything that hospital-2 states: its key" in "\n".join(certificate_words.not_proved(verified, SECOND_ENDED))
    assert certificate_words.guarantee(verified) is None
    page = certificate_page(certificate, SECOND_ENDED)
    assert f'<th scope="row">{SECOND}</th><td colspan="5">a receipt that counts for nothing' in page
    assert "Certificate of deletion" not in page
    # While the key is good, so is the receipt.
    assert verify_certificate(certificate, TRUST).outcome is Outcome.ERASED


def test_head_that_was_signed_too_late_shows_nothing(backdated: Backdated) -> None:
    backdated.submit(0 * DAY)
    backdated.answer(FIRST, 1 * DAY, 1 * DAY)
    backdated.answer(SECOND, 1 * DAY, 1 * DAY, witnessed=False)

    assert verify_certificate(backdated.certificate(3 * DAY), SECOND_ENDED).undated == (SECOND,)


@pytest.mark.parametrize("before", ["its request", "another receipt"])
def test_receipt_behind_what_is_later_than_its_keys_end_was_dated_back(backdated: Backdated, before: str) -> None:
    asked = 3 * DAY if before == "its request" else 0 * DAY
    backdated.submit(asked)
    backdated.answer(FIRST, 4 * DAY, 4 * DAY)
    backdated.answer(SECOND, 1 * DAY, 5 * DAY)

    with pytest.raises(InvalidProof, match=r"hospital-2 is dated back: it bears 2026-03-02.*ended on 2026-03-03"):
        verify_certificate(backdated.certificate(6 * DAY), SECOND_ENDED)


def test_first_head_of_a_receipt_must_hold_it_and_be_of_this_log(backdated: Backdated) -> None:
    backdated.submit(0 * DAY)
    backdated.service.log_update(0)
    for site in SITES:
        backdated.answer(site, 1 * DAY, 1 * DAY)
    kept = Certificate.from_bytes(backdated.certificate(6 * DAY))
    first, second = kept.receipts
    assert first.first is not None
    assert second.first is not None
    early = LogHead.of(first.first.head)

    def changed(head: FirstHead | None, receipt: int = 1) -> bytes:
        receipts = list(kept.receipts)
        receipts[receipt] = replace(receipts[receipt], first=head)
        return replace(kept, receipts=tuple(receipts)).to_bytes()

    assert verify_certificate(changed(second.first), SECOND_ENDED).undated == ()
    of_another_log = FirstHead(replace(early, size=3, root=bytes(32)).sign(LOG), ())
    for head in (first.first, of_another_log, FirstHead(kept.head, (bytes(32),))):
        with pytest.raises(InvalidProof, match="was changed or cut"):
            verify_certificate(changed(head), SECOND_ENDED)
    # Another head, signed by somebody else or with an earlier time.
    forged = replace(LogHead.of(kept.head), time=START).sign(STRANGER)
    with pytest.raises(InvalidProof, match="not trusted for this or was changed"):
        verify_certificate(changed(FirstHead(forged, ())), SECOND_ENDED)
    with pytest.raises(InvalidProof, match="was changed or cut"):
        verify_certificate(changed(None), SECOND_ENDED)


def test_certificate_of_version_1_is_dated_by_its_head(backdated: Backdated) -> None:
    backdated.submit(0 * DAY)
    for site in SITES:
        backdated.answer(site, 1 * DAY, 1 * DAY)
    for after, undated in ((1 * DAY, ()), (3 * DAY, (SECOND,))):
        backdated.clock.now = START + after
        backdated.service.submit(signed_request(f"another-{after.days}", issued=backdated.clock.now))
        kept = Certificate.from_bytes(backdated.certificate(after))
        before = replace(kept, receipts=tuple(replace(receipt, first=None) for receipt in kept.receipts))

        assert b"certificate:v1" in before.to_bytes()
        assert Certificate.from_bytes(before.to_bytes()) == before
        assert verify_certificate(before.to_bytes(), SECOND_ENDED).undated == undated


def test_ended_key_cannot_date_a_request_back() -> None:
    envelope, terms = OpenedRequest.of(signed_request(issued=START, days=300)).signed()

    verify_requester(envelope, terms, ENDED)
    verify_requester(envelope, terms, ENDED, heard=START + DAY / 2)
    with pytest.raises(InvalidProof, match=r"officer key .* of officer-1 expired on 2026-03-02"):
        verify_requester(envelope, terms, ENDED, heard=START + 2 * DAY)


def test_key_as_old_as_a_request_of_a_clock_that_is_ahead_is_good() -> None:
    trust = TrustedKeys((TrustedKey("officer", Role.OFFICER, OFFICER_KEY.public, START),))
    envelope, terms = OpenedRequest.of(signed_request()).signed()

    verify_requester(envelope, terms, trust, heard=START - timedelta(seconds=60))


def test_request_that_lives_too_long_is_not_heard() -> None:
    _, terms = OpenedRequest.of(signed_request(days=MAXIMUM_DAYS)).signed()
    terms.check_time(START)
    _, terms = OpenedRequest.of(signed_request(days=MAXIMUM_DAYS + 1)).signed()

    with pytest.raises(InvalidProof, match=f"valid for too long: .* for {MAXIMUM_DAYS} days"):
        terms.check_time(START)


@pytest.mark.parametrize(
    ("trust", "named", "fault"),
    [
        (TRUST, "nobody", "names 0 of the keys"),
        (TRUST, OFFICER_KEY.public.key_id[:7], "names 0 of the keys"),
        (TRUST.add(TrustedKey("officer-1", Role.OFFICER, STRANGER.public)), "officer-1", "names 2 of the keys"),
        (TRUST.revoke("officer-1", START), "officer-1", "was revoked, so it has ended"),
        (TrustedKeys((TrustedKey("a", Role.SITE, STRANGER.public, START + DAY),)), "a", "valid only later"),
    ],
)
def test_key_that_cannot_be_ended_is_named(trust: TrustedKeys, named: str, fault: str) -> None:
    with pytest.raises(InvalidProof, match=fault):
        trust.end(named, START + DAY)


def test_number_of_officers_is_kept_and_files_without_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    two = TRUST.add(TrustedKey("officer-2", Role.OFFICER, STRANGER.public)).require(2)
    two.write(path)

    assert TrustedKeys.read(path) == two
    assert json.loads(path.read_text())["version"] == 2
    assert two.revoke("hospital-1", START).officers == two.end("hospital-2", START).officers == 2
    two.require(1).write(path)
    assert json.loads(path.read_text()).keys() == {"keys"}
    assert TrustedKeys.read(path).officers == 1


@pytest.mark.parametrize("officers", [0, 2])
def test_no_more_officers_are_asked_for_than_there_are(officers: int) -> None:
    with pytest.raises(InvalidProof, match="1 officers' names are trusted here"):
        TRUST.require(officers)


@pytest.mark.parametrize("change", [{"version": 3}, {"version": 1}, {"officers": 0}, {"officers": True}, {"more": 1}])
def test_file_of_a_later_version_is_refused(change: dict[str, object]) -> None:
    document = {"version": 2, "officers": 2, "keys": [], **change}

    with pytest.raises(InvalidProof, match="a file"):
        TrustedKeys.parse(json.dumps(document).encode(), "a file")
