"""Two officers have a site forgotten, with a file that goes from one to the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmunkey.common.deletions.words import WholeSite
from fedmunkey.common.proofs.signing.statements import read_envelope

from .conftest import SITE, Federation, Run


@pytest.fixture
def saved(run: Run, federation: Federation) -> Path:
    """A request that the first officer has signed, of two that a site asks for."""
    run("signing-keys", "new", federation.path / "second.pem")
    for where in (federation.path, federation.path / SITE):
        key = federation.path / "second.pub"
        run("trust", "add", "officer-2", key, "--role", "officer", "--in", where)
    assert run("trust", "require", 2, "--in", federation.path / SITE).code == 0
    file = federation.path / "request.json"
    ended = run(*federation.officer, "--everything", "--site", SITE, "--yes", "--save", file, "--request-id", "r-1")
    assert "request r-1 with 1 signature; nothing was asked for yet" in ended.out, ended.err
    assert not federation.ledger.page().statuses
    return file


def test_second_officer_signs_and_the_site_forgets(run: Run, federation: Federation, saved: Path) -> None:
    words = ["countersign", saved, "--signing-key", federation.path / "second.pem", "--service", federation.service]

    assert "not confirmed, so nothing was signed" in run(*words, stdin="n\n").err
    assert not federation.ledger.page().statuses
    assert "'hospital-1' is to forget everything" in run(*words, "--yes").out
    applied = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json

    assert [answer["state"] for answer in applied] == ["erased"]
    request = federation.ledger.get("r-1").request
    assert request.target == WholeSite(SITE)
    assert len(read_envelope(request.signature).signatures) == 2


def test_third_officer_gets_a_file_of_two_signatures(run: Run, federation: Federation, saved: Path) -> None:
    second = ["--signing-key", federation.path / "second.pem", "--yes"]

    said = run("countersign", saved, *second, "--save", federation.path / "both.json").out
    again = run("countersign", federation.path / "both.json", *second, "--save", federation.path / "x.json").error

    assert "with 2 signatures; nothing was asked for yet" in said
    assert "two signatures by one key" in again
    assert not (federation.path / "x.json").exists()
    assert not federation.ledger.page().statuses


def test_one_officer_is_refused_by_the_site_with_the_way_out(run: Run, federation: Federation, saved: Path) -> None:
    assert saved.exists()
    run(*federation.officer, "--everything", "--site", SITE, "--yes", "--wait", 0)

    at = ["--service", federation.service, "--json"]
    (answer,) = run("catch-up", "--site-dir", federation.path / SITE, *at).json

    assert answer["state"] == "refused"
    assert "2 officers must ask for everything that this site holds, and 1 did" in answer["reason"]
    assert "munkey-client countersign" in answer["reason"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_file_that_is_no_request_is_one_line(run: Run, federation: Federation, content: bytes | None) -> None:
    file = federation.path / "request.json"
    if content is not None:
        file.write_bytes(content)

    assert run("countersign", file, "--signing-key", federation.path / "officer.pem", "--yes").error


def test_only_what_is_signed_is_saved(run: Run, federation: Federation) -> None:
    file = federation.path / "request.json"
    secret = ["--secret", federation.path / "federation.secret", "--service", federation.service]

    error = run("forget", "--as", "officer", "--subject", "scan-patient-1", *secret, "--save", file).error

    assert "--save is for a request signed" in error
    assert not file.exists()


def test_patient_is_forgotten_once_another_has_approved_where_all_needs_that(
    run: Run, federation: Federation, saved: Path
) -> None:
    assert saved.exists()
    both, file = ["require", 2, "--for", "all"], federation.path / "patient.json"
    assert "what the office asks for is carried out" in run("trust", *both, "--in", federation.path / SITE).out
    run("trust", *both, "--in", federation.path)
    patient = ["--subject", "scan-patient-1"]

    assert "2 officers must ask for anything" in run(*federation.officer, *patient).error
    assert not federation.ledger.page().statuses
    assert run(*federation.officer, *patient, "--save", file, "--request-id", "r-7").code == 0
    signed = run(
        "countersign", file, "--signing-key", federation.path / "second.pem", "--service", federation.service, "--yes"
    )
    assert "every site that holds it is to forget one patient" in signed.out, signed.err
    (erased,) = run("catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json").json
    assert erased["state"] == "erased"


def test_who_may_only_approve_files_nothing_and_who_may_only_look_signs_nothing(
    run: Run, federation: Federation, saved: Path
) -> None:
    assert saved.exists()
    second = ["--signing-key", federation.path / "second.pem"]
    office = [word if word != federation.path / "officer.pem" else second[1] for word in federation.officer]
    where = ["--in", federation.path]

    assert "may approve, view" in run("trust", "allow", "officer-2", "--may", "approve", *where).out
    assert "filed by nobody" in run(*office, "--subject", "scan-patient-1").error
    assert "may view" in run("trust", "allow", "officer-2", "--may", "view", *where).out
    refused = run("countersign", saved, *second, "--service", federation.service, "--yes").error
    assert "not theirs to sign" in refused
    assert "may only view" in refused
    assert not federation.ledger.page().statuses


def test_second_officer_signs_for_nearly_all_records(run: Run, federation: Federation, saved: Path) -> None:
    assert saved.exists()
    named = [word for number in range(60) for word in ("--record", f"scan-{number}")]
    site = ["catch-up", "--site-dir", federation.path / SITE, "--service", federation.service, "--json"]
    file = federation.path / "records.json"
    run(*federation.officer, *named, "--site", SITE, "--wait", 0)
    (refused,) = run(*site).json

    assert "too much for too few" in refused["reason"]
    assert run(*federation.officer, *named, "--site", SITE, "--save", file, "--request-id", "r-3").code == 0
    words = ["countersign", file, "--signing-key", federation.path / "second.pem", "--service", federation.service]
    assert "'hospital-1' is to forget 60 records" in run(*words, "--yes").out
    (erased,) = run(*site).json
    assert (erased["state"], erased["records"]) == ("erased", 60)


def test_file_with_another_record_than_was_signed_is_refused(run: Run, federation: Federation, saved: Path) -> None:
    file = federation.path / "records.json"
    run(*federation.officer, "--record", "scan-1", "--site", SITE, "--save", file)
    document = json.loads(file.read_bytes())
    document["references"] = ["00" * 32]
    file.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())

    assert "altered" in run("countersign", file, "--signing-key", federation.path / "second.pem", "--yes").error
    assert saved.exists()


def test_file_that_is_no_request_is_not_read_to_its_end(run: Run, federation: Federation) -> None:
    with (federation.path / "large.json").open("wb") as file:
        # Of so many zeros nothing lies on the disk.
        file.truncate(2**40)
    words = ["--signing-key", federation.path / "officer.pem", "--yes"]

    assert "at most 4194304 are read" in run("countersign", federation.path / "large.json", *words).error
