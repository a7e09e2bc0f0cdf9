"""Keys that end, requests that live too long, and how many officers a site asks for, in a file of trusted keys."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.certificate import verify_certificate, verify_requester
from fedmunkey.common.proofs.signed_requests import MAXIMUM_DAYS, OpenedRequest
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from tests.proof_case import OFFICER_KEY, SITES, START, STRANGER, TRUST, make_case, signed_request

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
