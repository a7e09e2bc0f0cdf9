"""`munkey-server` as a person types it, where members are concerned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.invitation import Invitation, fingerprint
from fedmunkey.server.database.connection import ledger_url, open_engine
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from tests.coordinator import OTHER, SITE, Coordinator, running_coordinator
from tests.server.databases import postgresql_database
from tests.typed import Run

JOIN = ["--joining-address", "127.0.0.1:9441"]


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

    assert "never overwritten" in run("init", "--host", "127.0.0.1", *made).error
    assert {file: file.read_bytes() for file in (tmp_path / "coordinator").rglob("*") if file.is_file()} == before


@pytest.fixture(params=["file", "postgresql"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a ledger that is not in the coordinator's folder."""
    if request.param == "file":
        yield str(tmp_path / "disk" / "federation.sqlite")
        return
    with postgresql_database() as url:
        yield url


def test_every_command_acts_on_the_ledger_that_init_was_told_of(run: Run, tmp_path: Path, elsewhere: str) -> None:
    (tmp_path / "disk").mkdir()
    where = ["--coordinator-dir", tmp_path / "coordinator"]
    assert run("init", "--host", "127.0.0.1", *where, "--database", elsewhere).code == 0

    assert run("sites", "--add", SITE, *where).code == 0
    assert run("invite", SITE, *JOIN, "--output", tmp_path / "a.json", *where).code == 0

    with Ledger(elsewhere) as ledger:
        assert ledger.site_names() == (SITE,)
    assert [site["site"] for site in run("status", *where, "--json").json["sites"]] == [SITE]
    assert run("members", *where, "--json").json == []
    assert CoordinatorFile.parse({"coordinator-dir": str(where[1])}, tmp_path / "coordinator.toml").ledger == (
        CoordinatorFolder(tmp_path / "coordinator").ledger
    )
    assert not (tmp_path / "coordinator" / "ledger.sqlite").exists()


def test_init_that_is_refused_writes_nothing_into_the_database_it_names(run: Run, made: list[object]) -> None:
    with postgresql_database() as url:
        assert "never overwritten" in run("init", "--host", "127.0.0.1", *made, "--database", url).error

        engine = open_engine(ledger_url(url))
        assert inspect(engine).get_table_names() == []
        engine.dispose()
    assert CoordinatorFolder(Path(str(made[1]))).ledger.endswith("ledger.sqlite")


def test_where_the_ledger_is_is_noted_without_a_password(made: list[object]) -> None:
    folder = CoordinatorFolder(Path(str(made[1])))

    folder.note_ledger("postgresql://someone:secret@db.example.org/ledger?sslmode=require&password=secret")

    assert folder.ledger == "postgresql://someone@db.example.org/ledger?sslmode=require"


@pytest.mark.parametrize("words", [["members"], ["status"], ["sites"], ["revoke", SITE, "--reason", "x"]])
def test_ledger_that_is_not_there_is_not_made(run: Run, made: list[object], tmp_path: Path, words: list[str]) -> None:
    ledger = tmp_path / "coordinator" / "ledger.sqlite"
    for file in ledger.parent.glob("ledger.sqlite*"):
        file.unlink()

    assert f"there is no ledger {ledger}; name" in run(*words, *made).error
    assert not ledger.exists()


@pytest.mark.parametrize("host", ["a b", "https://x", "127.0.0.1:9440", ""])
def test_init_names_a_host_that_is_none_and_writes_nothing(run: Run, tmp_path: Path, host: str) -> None:
    error = run("init", "--host", host, "--coordinator-dir", tmp_path / "coordinator").error

    assert "neither a host's name nor an IP address" in error
    assert not (tmp_path / "coordinator" / "ca" / "ca.pem").exists()


def test_invitation_names_the_authority_and_who_is_invited(run: Run, made: list[object], tmp_path: Path) -> None:
    shown = run("invite", SITE, *JOIN, "--output", tmp_path / "a.json", *made, "--json")

    invitation = Invitation.read(tmp_path / "a.json")
    authority = CoordinatorFolder(tmp_path / "coordinator").read_authority()
    assert shown.json["ca_fingerprint"] == invitation.fingerprint == fingerprint(authority.certificate)
    assert (invitation.name, invitation.role, invitation.address) == (SITE, MemberRole.SITE, "127.0.0.1:9441")
    assert invitation.token.hex() not in shown.out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["invite", "a b", *JOIN, "--output", "{folder}/a.json"], "cannot be a member's name"),
        (["invite", SITE, "--joining-address", "nowhere", "--output", "{folder}/a.json"], "is not an address"),
        (["invite", SITE, "--enrolment-address", "a:1", "--output", "{folder}/a.json"], "--joining-address"),
        (["invite", SITE, *JOIN, "--output", "{folder}"], "is there already"),
        (["invite", "coordinator", *JOIN, "--output", "{folder}/a.json"], "there is one coordinator"),
        (["revoke", SITE, "--reason", "x"], "there is no member"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(
    run: Run, made: list[object], tmp_path: Path, words: list[str], fault: str
) -> None:
    assert fault in run(*[word.format(folder=tmp_path) for word in words], *made).error
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
    members = run("members", *where, "--json").json

    assert [(member["name"], member["state"]) for member in members] == [
        ("coordinator", "replaced"),
        ("coordinator", "in use"),
        (SITE, "revoked"),
        (OTHER, "in use"),
    ]
    assert "it was stolen" in run("members", *where).out


def test_requests_are_listed_with_the_coordinators_identity(run: Run, coordinator: Coordinator) -> None:
    where = ["--coordinator-dir", coordinator.folder.path]

    assert run("requests", "--service", coordinator.address, *where, "--json").json == []
    assert "speaks TLS only" in run("requests", "--service", coordinator.address).error


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--address", "0.0.0.0:0"], "neither encrypted nor authenticated; give --coordinator-dir"),
        (["--joining-address", "127.0.0.1:0"], "--joining-address needs --coordinator-dir"),
        (["--coordinator-dir", "{folder}", "--insecure"], "contradict each other"),
        (["--coordinator-dir", "{folder}/nowhere"], "is no coordinator's folder"),
    ],
)
def test_serve_refuses_what_would_be_open_to_anybody(run: Run, tmp_path: Path, words: list[str], fault: str) -> None:
    ledger = tmp_path / "ledger.sqlite"

    assert fault in run("serve", "--database", ledger, *[word.format(folder=tmp_path) for word in words]).error
    assert not ledger.exists()


def test_coordinators_private_key_that_others_can_read_stops_the_service(
    run: Run, made: list[object], tmp_path: Path
) -> None:
    for key in ("ca/private-key.pem", "identity/private-key.pem", "log-key.pem"):
        path = tmp_path / "coordinator" / key
        path.chmod(0o644)
        assert f"run chmod 600 {path}" in run("serve", "--address", "127.0.0.1:0", *made).error
        path.chmod(0o600)
    assert Identity.read(tmp_path / "coordinator" / "identity").name == "coordinator"
