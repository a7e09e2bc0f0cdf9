"""`munkey-server` as a person types it, where members are concerned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from common.errors import EXIT_CODE
from common.identities import Identity, MemberRole
from common.identities.invitation import Invitation, fingerprint
from server.cli import main
from server.coordinator_folder import CoordinatorFolder
from tests.coordinator import OTHER, SITE, Coordinator, running_coordinator

Run = Callable[..., tuple[int, str, str]]
ENROL = ["--enrolment-address", "127.0.0.1:9441"]


@pytest.fixture
def run(typed: Run) -> Run:
    return partial(typed, main, "munkey-server")


@pytest.fixture
def made(run: Run, tmp_path: Path) -> list[object]:
    """The option that names a coordinator's folder that was just made."""
    where: list[object] = ["--coordinator-dir", tmp_path / "coordinator"]
    assert run("init", "--host", "127.0.0.1", "--host", "coordinator.example.org", *where)[0] == 0
    return where


@pytest.mark.usefixtures("made")
def test_init_makes_what_serve_needs_for_its_owner_only(tmp_path: Path) -> None:
    folder = CoordinatorFolder(tmp_path / "coordinator")

    identity = folder.read_identity()
    assert identity.role is MemberRole.COORDINATOR
    for private in (folder.authority / "private-key.pem", identity.key_file, folder.log_key):
        assert private.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_init_overwrites_nothing(run: Run, made: list[object], tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in (tmp_path / "coordinator").rglob("*") if file.is_file()}

    code, out, err = run("init", "--host", "127.0.0.1", *made)

    assert (code, out) == (EXIT_CODE, "")
    assert "never overwritten" in err
    assert {file: file.read_bytes() for file in (tmp_path / "coordinator").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("host", ["a b", "https://x", "127.0.0.1:9440", ""])
def test_init_names_a_host_that_is_none_and_writes_nothing(run: Run, tmp_path: Path, host: str) -> None:
    code, _, err = run("init", "--host", host, "--coordinator-dir", tmp_path / "coordinator")

    assert code == EXIT_CODE
    assert "neither a host's name nor an IP address" in err
    assert not (tmp_path / "coordinator" / "ca" / "ca.pem").exists()


def test_invitation_names_the_authority_and_who_is_invited(run: Run, made: list[object], tmp_path: Path) -> None:
    code, out, _ = run("invite", SITE, *ENROL, "--output", tmp_path / "a.json", *made, "--json")

    invitation = Invitation.read(tmp_path / "a.json")
    authority = CoordinatorFolder(tmp_path / "coordinator").read_authority()
    assert code == 0
    assert json.loads(out)["ca_fingerprint"] == invitation.fingerprint == fingerprint(authority.certificate)
    assert (invitation.name, invitation.role, invitation.address) == (SITE, MemberRole.SITE, "127.0.0.1:9441")
    assert invitation.token.hex() not in out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["invite", "a b", *ENROL, "--output", "{folder}/a.json"], "cannot be a member's name"),
        (["invite", SITE, "--enrolment-address", "nowhere", "--output", "{folder}/a.json"], "is not an address"),
        (["invite", SITE, *ENROL, "--output", "{folder}"], "is there already"),
        (["invite", "coordinator", *ENROL, "--output", "{folder}/a.json"], "there is one coordinator"),
        (["revoke", SITE, "--reason", "x"], "there is no member"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(
    run: Run, made: list[object], tmp_path: Path, words: list[str], fault: str
) -> None:
    code, out, err = run(*[word.format(folder=tmp_path) for word in words], *made)

    assert (code, out, err.count("\n")) == (EXIT_CODE, "", 1)
    assert fault in err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("command", [["members"], ["renew"], ["revoke", SITE, "--reason", "x"]])
def test_mistyped_folder_does_not_become_a_federation(run: Run, tmp_path: Path, command: list[str]) -> None:
    code, _, _ = run(*command, "--coordinator-dir", tmp_path / "nowhere")

    assert code == EXIT_CODE
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    with running_coordinator(tmp_path) as running:
        yield running


def test_members_are_listed_revoked_and_renewed_beside_the_service(run: Run, coordinator: Coordinator) -> None:
    where = ["--coordinator-dir", coordinator.folder.path]
    coordinator.member(SITE)
    coordinator.member(OTHER)

    assert run("revoke", SITE, "--reason", "it was stolen", *where)[0] == 0
    assert run("renew", "--host", "127.0.0.1", *where)[0] == 0
    code, out, _ = run("members", *where, "--json")
    _, table, _ = run("members", *where)

    assert code == 0
    assert [(member["name"], member["state"]) for member in json.loads(out)] == [
        ("coordinator", "replaced"),
        ("coordinator", "in use"),
        (SITE, "revoked"),
        (OTHER, "in use"),
    ]
    assert "it was stolen" in table


def test_requests_are_listed_with_the_coordinators_identity(run: Run, coordinator: Coordinator) -> None:
    where = ["--coordinator-dir", coordinator.folder.path]

    assert run("requests", "--service", coordinator.address, *where, "--json")[:2] == (0, "[]\n")
    code, _, err = run("requests", "--service", coordinator.address)

    assert code == EXIT_CODE
    assert "speaks TLS only" in err


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--address", "0.0.0.0:0"], "neither encrypted nor authenticated; give --coordinator-dir"),
        (["--enrolment-address", "127.0.0.1:0"], "--enrolment-address needs --coordinator-dir"),
        (["--coordinator-dir", "{folder}", "--insecure"], "contradict each other"),
        (["--coordinator-dir", "{folder}/nowhere"], "holds no identity"),
    ],
)
def test_serve_refuses_what_would_be_open_to_anybody(run: Run, tmp_path: Path, words: list[str], fault: str) -> None:
    ledger = tmp_path / "ledger.sqlite"

    code, out, err = run("serve", "--database", ledger, *[word.format(folder=tmp_path) for word in words])

    assert (code, out, err.count("\n")) == (EXIT_CODE, "", 1)
    assert fault in err
    assert not ledger.exists()


def test_coordinators_private_key_that_others_can_read_stops_the_service(
    run: Run, made: list[object], tmp_path: Path
) -> None:
    for key in ("ca/private-key.pem", "identity/private-key.pem", "log-key.pem"):
        path = tmp_path / "coordinator" / key
        path.chmod(0o644)
        code, _, err = run("serve", "--address", "127.0.0.1:0", *made)
        path.chmod(0o600)

        assert code == EXIT_CODE
        assert f"run chmod 600 {path}" in err
    assert Identity.read(tmp_path / "coordinator" / "identity").name == "coordinator"
