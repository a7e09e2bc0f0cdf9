"""Legal holds as an officer types them: what they keep, at the gate and at sites, who may release them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import RequestState, Subject
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.proofs.governance.instructions import InstructionKind, sign_instruction
from fedmunkey.common.proofs.governance.standing import Standing
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import TrustedKeys

from .conftest import OTHER, SITE, Federation, Run, catch_up

PATIENT = ["--subject", "scan-patient-1"]


@pytest.fixture(autouse=True)
def _here(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands leave receipts where they are typed."""
    monkeypatch.chdir(federation.path)


def office(federation: Federation, key: str = "officer.pem", *, secret: bool = True) -> list[object]:
    words: list[object] = ["--signing-key", federation.path / key, "--service", federation.service]
    return [*words, "--secret", federation.path / "federation.secret"] if secret else words


def place(run: Run, federation: Federation, *about: object, name: str = "case-1") -> None:
    ended = run("hold", "place", *office(federation), "--id", name, *about)
    assert ended.code == 0, ended.err
    assert f"hold {name} is in force" in ended.out


def released(run: Run, federation: Federation, key: str = "officer.pem", name: str = "case-1") -> str:
    ended = run("hold", "release", name, *office(federation, key, secret=False))
    return ended.out if ended.code == 0 else ended.err


def keep_second_officer(run: Run, federation: Federation, *may: str) -> None:
    run("signing-keys", "new", federation.path / "second.pem")
    allowed = [word for duty in may for word in ("--may", duty)]
    for where in (federation.path, federation.path / SITE, federation.path / OTHER):
        key = federation.path / "second.pub"
        ended = run("trust", "add", "officer-2", key, "--role", "officer", *allowed, "--in", where)
        assert ended.code == 0, ended.err


def count(federation: Federation) -> int:
    with federation.site(SITE).open() as store:
        return len(store.records.count_influences()) and sum(store.records.count_influences().values())


def test_request_for_what_is_held_is_turned_away_with_a_receipt_that_anybody_verifies(
    run: Run, federation: Federation
) -> None:
    place(run, federation, *PATIENT)

    blocked = run(*federation.officer, *PATIENT, "--request-id", "r-1")

    assert blocked.code == 8
    assert "BLOCKED, NOTHING ERASED: held: the legal hold 'case-1'" in blocked.out
    assert not federation.ledger.page().statuses
    (file,) = federation.path.glob("blocked-*.json")
    keys = federation.path / "trust.json"
    checked = run("verify", file, "--keys", keys)
    assert checked.code == 0
    assert "The receipt holds. The coordinator kept request r-1 out" in checked.out
    (listed,) = run("hold", "list", "--service", federation.service, "--json").json
    assert run("verify", file, "--keys", keys, "--json").json["holds"] == [listed["digest"]]
    assert file.stat().st_mode & 0o077 == 0
    altered = file.read_bytes().replace(b'"payload":"', b'"payload":"AAAA')
    (federation.path / "altered.json").write_bytes(altered)
    assert run("verify", federation.path / "altered.json", "--keys", keys).error
    TrustedKeys.read(federation.path / SITE / "trust.json").write(federation.path / "site-keys.json")
    assert run("verify", file, "--keys", federation.path / "site-keys.json").code == 0
    assert "scan-patient" not in file.read_text() + json.dumps(listed)


def test_blocked_in_json_has_its_own_exit_code_and_names_the_receipt(run: Run, federation: Federation) -> None:
    place(run, federation, "--record", "scan-1", "--record", "scan-5")

    blocked = run(*federation.officer, "--record", "scan-5", "--record", "scan-6", "--json")

    assert blocked.code == 8
    said = json.loads(blocked.out)
    assert said["outcome"] == "held"
    assert Path(said["receipt"]).is_file()
    assert run(*federation.officer, "--record", "scan-6", "--wait", 0).code == 6


def test_hold_that_comes_after_the_request_keeps_what_no_site_has_erased_yet(run: Run, federation: Federation) -> None:
    run(*federation.officer, *PATIENT, "--wait", 0, "--request-id", "r-1")
    run(*federation.officer, "--record", "scan-9", "--wait", 0, "--request-id", "r-2")

    ended = run("hold", "place", *office(federation), *PATIENT, "--id", "case-1")
    assert "request r-1 was entered before and names it, dispatched" in ended.out
    catch_up(run, federation)

    held, record = federation.ledger.get("r-1").sites, federation.ledger.get("r-2")
    assert [part.state.value for part in held] == ["refused", "refused"]
    assert all("held: the legal hold case-1" in part.reason for part in held)
    assert federation.ledger.get("r-1").state is RequestState.REFUSED
    assert record.erased == 2


@pytest.mark.parametrize(
    ("about", "wanted"),
    [
        # scan-2 and scan-3 are of scan-patient-1.
        (["--record", "scan-2"], PATIENT),
        (PATIENT, ["--record", "scan-3", "--record", "scan-40"]),
        (PATIENT, ["--everything", "--site", SITE, "--yes"]),
        (["--record", "scan-2"], ["--everything", "--site", SITE, "--yes"]),
    ],
)
def test_site_refuses_what_would_erase_any_of_what_is_held_in_one_piece(
    run: Run, federation: Federation, about: list[object], wanted: list[object]
) -> None:
    place(run, federation, *about)
    before = count(federation)

    assert run(*federation.officer, *wanted, "--wait", 0, "--request-id", "r-1").code == 6
    (answer,) = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json

    assert answer["state"] == "refused"
    assert answer["reason"].startswith("held: the legal hold case-1 is on what the order would erase here")
    assert "scan-" not in json.dumps(answer)
    assert count(federation) == before
    assert "is in force no more" in released(run, federation)
    assert run(*federation.officer, *wanted, "--wait", 0, "--request-id", "r-2").code == 6
    (erased,) = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json
    assert erased["state"] == "erased"


def test_sites_own_request_is_held_as_well(run: Run, federation: Federation) -> None:
    place(run, federation, *PATIENT)

    words = ["forget", "--site-dir", federation.path / SITE, "--service", federation.service]
    assert run(*words, *PATIENT).code == 8
    assert run(*words, "--record", "scan-2", "--wait", 0).code == 6
    (answer,) = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json
    assert answer["state"] == "refused"


def test_hold_is_placed_by_who_may_file_and_released_by_who_may_approve(run: Run, federation: Federation) -> None:
    keep_second_officer(run, federation, "file")
    place(run, federation, *PATIENT)

    assert "a hold is ended by who may approve, and officer-2 may not" in released(run, federation, "second.pem")
    for where in (federation.path, federation.path / SITE):
        run("trust", "allow", "officer-2", "--may", "approve", "--in", where)
    refused = run("hold", "place", *office(federation, "second.pem"), *PATIENT, "--id", "case-2").error
    assert "filed by nobody" in refused
    assert "is in force no more" in released(run, federation, "second.pem")
    assert "names 0 of the holds in force" in released(run, federation, "second.pem")


def test_where_two_must_agree_who_placed_a_hold_does_not_release_it(run: Run, federation: Federation) -> None:
    keep_second_officer(run, federation)
    run("trust", "require", 2, "--in", federation.path)
    place(run, federation, *PATIENT)

    assert "another officer than officer-1 must end the hold 'case-1'" in released(run, federation)
    assert "is in force no more" in released(run, federation, "second.pem")


def test_hold_of_a_stranger_or_of_a_site_is_none(run: Run, federation: Federation) -> None:
    run("signing-keys", "new", federation.path / "stranger.pem")
    for key in (federation.path / "stranger.pem", federation.path / SITE / "site-key.pem"):
        words = ["--signing-key", key, "--secret", federation.path / "federation.secret"]
        error = run("hold", "place", *words, *PATIENT, "--service", federation.service).error
        assert "the instruction is refused" in error
    assert not federation.ledger.instructions()


def test_site_believes_no_hold_that_the_coordinator_let_in_without_an_officer(
    run: Run, federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    secret = FederationSecret.read(federation.path / "federation.secret")
    thief = SigningKey.generate()
    now = federation.ledger.ledger._clock()
    about = Subject(secret.reference("scan-patient-1"))
    forged = sign_instruction("forged", InstructionKind.HOLD, about, thief, secret.federation_id, now)
    federation.ledger.ledger.instruct(forged, lambda *_: None)
    place(run, federation, "--subject", "scan-patient-2", name="genuine")
    run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service)

    with federation.site(SITE).open() as store:
        assert [one.instruction_id for one in store.instructions.standing().known.values()] == ["genuine"]
    assert "the instruction 'forged' is not followed by this site" in caplog.text


def test_coordinator_releases_no_hold_at_a_site_by_itself(run: Run, federation: Federation) -> None:
    place(run, federation, *PATIENT)
    run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service)
    secret = FederationSecret.read(federation.path / "federation.secret")
    (hold,) = federation.ledger.ledger.standing().in_force(InstructionKind.HOLD)
    now = federation.ledger.ledger._clock()
    over = sign_instruction("over", InstructionKind.END, hold.digest, SigningKey.generate(), secret.federation_id, now)
    federation.ledger.ledger.instruct(over, lambda *_: None)

    assert run(*federation.officer, *PATIENT, "--wait", 0).code == 6
    (answer,) = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json
    assert answer["state"] == "refused"


def test_hold_of_another_federation_is_none(run: Run, federation: Federation) -> None:
    other = federation.path / "other.secret"
    FederationSecret.generate().write(other)
    words = ["--signing-key", federation.path / "officer.pem", "--secret", other, "--service", federation.service]
    assert run("hold", "place", *words, *PATIENT).code == 0
    run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service)

    with federation.site(SITE).open() as store:
        assert store.instructions.standing() == Standing()


def test_mistakes_are_one_line(run: Run, federation: Federation) -> None:
    place(run, federation, *PATIENT)
    for words, fault in (
        ([], "say what it is about"),
        ([*PATIENT, "--record", "scan-1"], "say what it is about"),
        (["--record", "scan-1", "--id", "case-1"], "stands for another one already"),
        ([*PATIENT, "--id", "a\nb"], ""),
        ([*PATIENT, "--id", "x" * 101], "not one that this version knows"),
    ):
        assert fault in run("hold", "place", *office(federation), *words).error
    assert "names 0 of the holds in force" in run("hold", "release", "nobody", *office(federation, secret=False)).error
    with pytest.raises(InvalidDeletion, match="is refused"):
        federation.ledger.instruct(b"{}")


def test_what_a_site_knows_of_holds_names_nobody_in_its_files(run: Run, federation: Federation) -> None:
    place(run, federation, *PATIENT)
    run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service)
    reference = FederationSecret.read(federation.path / "federation.secret").reference("scan-patient-1")

    for file in SiteFolder(federation.path / SITE).path.glob("keystore.*"):
        content = file.read_bytes()
        assert reference not in content
        assert reference.hex().encode() not in content
