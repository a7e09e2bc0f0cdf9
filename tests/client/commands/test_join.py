"""`munkey-client join`, `rotate`, and commands that show an identity, as a person types them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, Subject
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from tests.client.commands.conftest import SITE, Run
from tests.coordinator import FIRST_OFFICER, OTHER, Coordinator, running_coordinator


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path / "at-the-coordinator") as running:
        yield running


def test_enrolled_site_joins_catches_up_asks_rotates(run: Run, coordinator: Coordinator, folder: SiteFolder) -> None:
    where = ["--site-dir", folder.path]
    service = ["--service", coordinator.address]

    joined = run("join", coordinator.invite(SITE), *where, "--json").json
    asked = run("forget", "--record", "scan-3", *where, *service, "--wait", 0, "--json").document
    applied = run("catch-up", *where, *service, "--json").json
    rotated = run("rotate", *where, *service, "--json").json

    assert (joined["name"], joined["role"], joined["trusted_officers"]) == (SITE, "site", 0)
    assert asked["requester"] == SITE
    assert [answer["records"] for answer in applied] == [1]
    assert rotated["name"] == SITE
    assert coordinator.service.get(asked["request_id"]).state.final
    assert run("catch-up", *where, *service, "--json").json == []


def test_site_says_that_it_trusts_no_requester_yet(run: Run, coordinator: Coordinator, folder: SiteFolder) -> None:
    ended = run("join", coordinator.invite(SITE), "--site-dir", folder.path)

    assert ended.code == 0
    assert "the coordinator cannot introduce one: munkey-client trust add" in ended.out


def test_officer_joins_and_asks_with_identity(run: Run, coordinator: Coordinator, secret: Path, tmp_path: Path) -> None:
    coordinator.member(SITE)
    key = tmp_path / "officer.pem"
    SigningKey.generate().write(key)
    invitation = coordinator.invite(FIRST_OFFICER, MemberRole.OFFICER)
    identity = ["--identity", tmp_path / "officer"]

    assert run("join", invitation, *identity, "--json").json["role"] == "officer"
    words = ["forget", "--as", "officer", "--signing-key", key, "--secret", secret]
    words += ["--subject", "scan-patient-1", "--wait", 0]
    asked = run(*words, "--service", coordinator.address, *identity, "--json").document

    assert asked["requester"] == OFFICER
    status = coordinator.service.get(asked["request_id"])
    assert status.request.target == Subject(FederationSecret.read(secret).reference("scan-patient-1"))
    refused = run(*words, "--service", coordinator.address).error
    assert "speaks TLS only" in refused


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["join", "{invitation}"], "say where the identity is to lie"),
        (["join", "{invitation}", "--identity", "{folder}/x"], "join with --site-dir"),
        (["join", "{folder}/missing.json", "--site-dir", "{folder}/x"], "cannot be read"),
        (["rotate"], "say whose identity"),
        (["rotate", "--identity", "{folder}/missing"], "holds no identity"),
    ],
)
def test_mistake_is_one_line(run: Run, coordinator: Coordinator, tmp_path: Path, words: list[str], fault: str) -> None:
    invitation = coordinator.invite(SITE)

    ended = run(*[word.format(invitation=invitation, folder=tmp_path) for word in words])

    assert fault in ended.error
    assert not (tmp_path / "x").exists()


def test_status_and_agents_say_when_the_certificate_ends(
    run: Run, coordinator: Coordinator, folder: SiteFolder, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator.member(SITE).folder.rename(folder.identity)
    where = ["--site-dir", folder.path]

    shown = run("status", *where, "--json").json["identity"]
    run("catch-up", *where, "--service", coordinator.address)

    assert shown.startswith(f"site {SITE}, good until ")
    assert f"expires in 0 days: munkey-client rotate --site-dir {folder.path}" in caplog.text
    (folder.identity / "private-key.pem").chmod(0o644)
    assert "run chmod 600" in run("status", *where, "--json").json["identity"]


def test_folder_of_another_site_does_not_join(run: Run, coordinator: Coordinator, folder: SiteFolder) -> None:
    refused = run("join", coordinator.invite(OTHER), "--site-dir", folder.path).error

    assert f"belongs to site '{SITE}'" in refused
    assert not folder.identity.exists()


def test_site_with_half_an_identity_never_asks_in_plain_text(run: Run, folder: SiteFolder, service: str) -> None:
    folder.identity.mkdir()

    refused = run("catch-up", "--site-dir", folder.path, "--service", service).error

    assert "holds no identity" in refused
