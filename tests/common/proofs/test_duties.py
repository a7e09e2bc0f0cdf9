"""Who may file, who may approve and who only looks; what no signature of theirs brings about."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import Subject, WholeSite
from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.duties import EVERY_DUTY, Duty
from fedmunkey.common.proofs.governance.approvals import check_approved, count_persons
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.proofs.trusted_keys import Approved, Role, TrustedKey, TrustedKeys
from fedmunkey.common.proofs.verification import verify_requester
from tests.proof_case import OFFICER_KEY, SECRET, SITE_KEYS, SITES, START, TRUST, signed_request

SECOND = SigningKey.from_seed(bytes([4]) * 32)
FILE, APPROVE, VIEW = ({duty, Duty.VIEW} for duty in (Duty.FILE, Duty.APPROVE, Duty.VIEW))


def trust(
    first: set[Duty], second: set[Duty], officers: int = 1, approved: Approved = Approved.SITES, name: str = "officer-2"
) -> TrustedKeys:
    keys = TrustedKeys(
        (
            TrustedKey("officer-1", Role.OFFICER, OFFICER_KEY.public, duties=frozenset(first)),
            TrustedKey(name, Role.OFFICER, SECOND.public, duties=frozenset(second)),
            TrustedKey(SITES[0], Role.SITE, SITE_KEYS[SITES[0]].public),
        )
    )
    return replace(keys, officers=officers, approved=approved)


def signed(*keys: SigningKey, request_id: str = "request-1", whole: bool = False) -> OpenedRequest:
    target = WholeSite(SITES[0]) if whole else Subject(SECRET.reference("patient-17"))
    request = signed_request(request_id, target, key=keys[0])
    envelope = read_envelope(request.signature)
    for key in keys[1:]:
        envelope = envelope.countersign(key)
    return OpenedRequest.of(replace(request, signature=envelope.to_bytes()))


def check(opened: OpenedRequest, keys: TrustedKeys) -> None:
    envelope, terms = opened.signed()
    verify_requester(envelope, terms, keys, heard=START)
    check_approved(opened, keys)


@pytest.mark.parametrize(
    ("opened", "keys", "fault"),
    [
        (signed(SECOND), trust(FILE, APPROVE), "filed by nobody: officer-2 may approve"),
        (signed(SECOND), trust(FILE, VIEW), "not theirs to sign: .* of officer-2 may only view"),
        (signed(OFFICER_KEY, SECOND), trust(FILE, VIEW), "not theirs to sign"),
        (signed(OFFICER_KEY), trust(FILE, APPROVE, 2, Approved.ALL), "2 officers must ask for anything, and 1"),
        (signed(OFFICER_KEY, whole=True), trust(FILE, APPROVE, 2, Approved.ALL), "for everything that this site holds"),
        (signed(OFFICER_KEY, SECOND), trust(FILE, FILE, 2, Approved.ALL), "and 1 did"),
        (
            signed(OFFICER_KEY, SECOND),
            trust(FILE | APPROVE, FILE | APPROVE, 2, Approved.ALL, name="officer-1"),
            "and 1 did",
        ),
    ],
)
def test_signatures_that_are_not_enough_are_refused(opened: OpenedRequest, keys: TrustedKeys, fault: str) -> None:
    with pytest.raises(InvalidProof, match=fault):
        check(opened, keys)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("order", [(OFFICER_KEY, SECOND), (SECOND, OFFICER_KEY)])
def test_one_files_and_another_approves_whoever_signs_first(order: tuple[SigningKey, SigningKey], whole: bool) -> None:
    check(signed(*order, whole=whole), trust(FILE, APPROVE, 2, Approved.ALL))


def test_patient_needs_one_officer_where_only_whole_sites_need_two() -> None:
    check(signed(OFFICER_KEY), trust(FILE, APPROVE, 2))


def test_approval_of_one_request_is_none_of_another() -> None:
    approved, other = signed(OFFICER_KEY, SECOND), signed(OFFICER_KEY, request_id="request-2")
    assert approved.envelope is not None
    assert other.envelope is not None
    moved = replace(other.envelope, signatures=(*other.envelope.signatures, *approved.envelope.signatures[1:]))
    forged = OpenedRequest.of(replace(other.request, signature=moved.to_bytes()))

    with pytest.raises(InvalidProof, match=r"does not hold|wrong|signature"):
        check(forged, trust(FILE, APPROVE, 2, Approved.ALL))


@pytest.mark.parametrize("end", ["revoked", "end"])
def test_approver_that_is_revoked_or_has_ended_approves_nothing(end: str) -> None:
    keys = trust(FILE, APPROVE, 2, Approved.ALL)
    at = START - timedelta(days=1)
    ended = keys.revoke("officer-2", at) if end == "revoked" else keys.end("officer-2", at)

    with pytest.raises(InvalidProof, match=r"officer-2 (was revoked|expired)"):
        check(signed(OFFICER_KEY, SECOND), ended)


def test_site_decides_alone_about_a_patient_and_not_about_everything() -> None:
    keys = trust(FILE, APPROVE, 2, Approved.ALL)
    own = {"requester": SITES[0], "key": SITE_KEYS[SITES[0]]}

    check(OpenedRequest.of(signed_request(**own)), keys)  # type: ignore[arg-type]
    with pytest.raises(InvalidProof, match="2 officers must ask for everything"):
        check(OpenedRequest.of(signed_request(target=WholeSite(SITES[0]), **own)), keys)  # type: ignore[arg-type]


def test_site_that_may_only_look_asks_for_nothing() -> None:
    looking = trust(FILE, APPROVE).allow(SITES[0], frozenset({Duty.VIEW}))

    with pytest.raises(InvalidProof, match="not theirs to sign"):
        check(OpenedRequest.of(signed_request(requester=SITES[0], key=SITE_KEYS[SITES[0]])), looking)


def test_three_need_a_filer_and_two_others() -> None:
    third = TrustedKey("officer-3", Role.OFFICER, SITE_KEYS[SITES[1]].public, duties=frozenset(APPROVE))
    keys = trust(FILE, APPROVE)

    assert count_persons((*keys.keys[:2], third)) == 3
    assert count_persons((keys.keys[1], third)) == 0


def test_duties_and_what_needs_approval_are_kept_and_programs_of_before_do_not_take_such_a_file(
    tmp_path: Path,
) -> None:
    keys = trust(FILE, APPROVE, 2, Approved.ALL)
    keys.write(tmp_path / "trust.json")

    assert TrustedKeys.read(tmp_path / "trust.json") == keys
    assert '"version": 3' in (tmp_path / "trust.json").read_text()
    TRUST.write(tmp_path / "plain.json")
    assert "version" not in (tmp_path / "plain.json").read_text()
    replace(TRUST, officers=1).require(1).write(tmp_path / "plain.json")
    assert all(key.duties == EVERY_DUTY for key in TrustedKeys.read(tmp_path / "plain.json").keys)


@pytest.mark.parametrize("may", [[], ["everything"], "file", [1]])
def test_duties_that_are_none_are_refused(may: object, tmp_path: Path) -> None:
    document = {**TRUST.keys[0].document(), "may": may}

    with pytest.raises(InvalidProof, match="what are no duties"):
        TrustedKeys.parse(str({"keys": [document]}).replace("'", '"').replace("None", "null").encode(), "it")
    assert not list(tmp_path.iterdir())
