"""A ledger is put back from a copy: what became of members since then stays so, as operators and members see it."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from fedmunkey.client.cli import main as client_main
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.supervision import own_program
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.cli import main as server_main
from fedmunkey.server.database.member_tables import MemberRow
from fedmunkey.server.database.tables import EventRow, SiteRow
from fedmunkey.server.deletions.upkeep import POLL_SECONDS
from fedmunkey.server.members.register import serial_of
from tests.coordinator import running_coordinator
from tests.patience import PATIENCE
from tests.processes import Running
from tests.typed import Run, runner

ROTATED, STOLEN, LATE = "rotated", "stolen", "late"


class Served(Running):
    """`munkey-server serve` on a coordinator's folder, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        words = ["serve", "--coordinator-dir", str(folder), "--address", "127.0.0.1:0"]
        super().__init__(own_program("fedmunkey.server.cli", *words, "--joining-address", "127.0.0.1:0"), folder.parent)
        said = self.expect("deletion service at ")
        self.address = said.partition("deletion service at ")[2].partition(",")[0]
        self.joining = said.partition("joining at ")[2].strip()

    def fault(self, identity: Path) -> str:
        """Return why a member is refused, empty if it is not."""
        with DeletionChannel(self.address, timeout=PATIENCE, identity=Identity.read(identity)) as channel:
            try:
                channel.log_update(0)
            except InvalidDeletion as error:
                return str(error)
        return ""


@dataclass
class Federation:
    """What is typed at the coordinator and at the sites."""

    path: Path
    server: Run
    client: Run

    @property
    def folder(self) -> Path:
        return self.path / "coordinator"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    def identity(self, name: str) -> Path:
        return self.path / name / "identity"

    def type(self, *words: object) -> str:
        ended = self.server(*words, "--coordinator-dir", self.folder)
        assert ended.code == 0, ended.err
        return ended.out + ended.err

    def join(self, served: Served, name: str) -> None:
        invitation = self.path / f"{name}.json"
        self.type("invite", name, "--joining-address", served.joining, "--output", invitation)
        ended = self.client("join", invitation, "--site-dir", self.path / name)
        assert ended.code == 0, ended.err

    def states(self) -> dict[str, list[str]]:
        listed = self.server("members", "--json", "--coordinator-dir", self.folder).json
        names = {member["name"] for member in listed}
        return {name: [member["state"] for member in listed if member["name"] == name] for name in names}

    def copy(self) -> None:
        with closing(sqlite3.connect(self.ledger)) as ledger, closing(sqlite3.connect(self.path / "copy")) as copy:
            ledger.backup(copy)

    def put_back(self) -> None:
        for file in self.folder.glob("ledger.sqlite*"):
            file.unlink()
        shutil.copy(self.path / "copy", self.ledger)


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Federation:
    server, client = (
        runner(name, main, monkeypatch, capsys)
        for name, main in (("munkey-server", server_main), ("munkey-client", client_main))
    )
    made = Federation(tmp_path, server, client)
    made.type("init", "--host", "127.0.0.1")
    return made


@pytest.mark.processes
def test_who_was_revoked_rotated_or_joined_since_the_copy_stays_so(federation: Federation) -> None:
    with Served(federation.folder) as served:
        for name in (ROTATED, STOLEN):
            federation.join(served, name)
        federation.copy()
        shutil.copytree(federation.identity(ROTATED), federation.path / "old")
        where = ["--site-dir", federation.path / ROTATED, "--service", served.address]
        assert federation.client("rotate", *where).code == 0
        assert served.fault(federation.identity(ROTATED)) == ""
        federation.type("revoke", STOLEN, "--reason", "its server was stolen")
        federation.join(served, LATE)
        served.stop_well()
    expected = federation.states()
    federation.put_back()

    with Served(federation.folder) as served:
        assert [served.fault(federation.identity(name)) for name in (ROTATED, LATE)] == ["", ""]
        assert "was revoked" in served.fault(federation.identity(STOLEN))
        assert "was replaced" in served.fault(federation.path / "old")
        lines = served.output.decode()
        assert f"had lost what became of {LATE}: certificate" in lines
        assert "it is registered as a site" in lines
        assert "its server was stolen" not in lines
        served.stop_well()
    assert federation.states() == expected
    assert expected[STOLEN] == ["revoked"]
    sites = federation.server("sites", "--json", "--coordinator-dir", federation.folder).json
    assert [site["site"] for site in sites] == [LATE, ROTATED, STOLEN]

    # What was brought back is in the ledger, and is not told again.
    with Served(federation.folder) as served:
        assert b"had lost" not in served.output


@pytest.mark.processes
@pytest.mark.parametrize("words", [["members"], ["restored", "--reason", "the disk failed", "--save", "said.json"]])
def test_command_brings_back_what_the_ledger_lost_before_the_service_runs(
    federation: Federation, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(federation.path)
    with Served(federation.folder) as served:
        federation.join(served, STOLEN)
        federation.copy()
        federation.type("revoke", STOLEN, "--reason", "its server was stolen")
        federation.join(served, LATE)
    federation.put_back()

    said = federation.type(*words)

    assert f"what became of {LATE}: certificate" in said
    assert f"what became of {STOLEN}: certificate" in said
    with closing(sqlite3.connect(federation.ledger)) as ledger:
        assert ledger.execute("SELECT name FROM sites ORDER BY name").fetchall() == [(LATE,), (STOLEN,)]
        revoked = ledger.execute("SELECT name FROM members WHERE revoked_at IS NOT NULL").fetchall()
    assert revoked == [(STOLEN,)]


def test_service_that_runs_on_a_database_that_goes_back_gives_it_its_members_again(tmp_path: Path) -> None:
    def eventually(seen: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not seen() and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return seen()

    with running_coordinator(tmp_path) as coordinator:
        stolen = coordinator.member(STOLEN)
        coordinator.register.revoke(STOLEN, "its server was stolen")
        late = coordinator.member(LATE)
        # The look at the register, and that at the ledger, have seen this state.
        threading.Event().wait(3 * POLL_SECONDS)

        # As a restoration within the database does it, which no file shows.
        with coordinator.ledger.engine.execution_options(write=True).begin() as connection:
            connection.execute(update(MemberRow).values(revoked_at=None, reason=""))
            connection.execute(delete(MemberRow).where(MemberRow.name == LATE))
            connection.execute(delete(SiteRow).where(SiteRow.name == LATE))
            connection.exec_driver_sql("DROP TRIGGER events_no_delete")
            connection.execute(delete(EventRow).where(EventRow.site == LATE))

        assert eventually(lambda: LATE in coordinator.ledger.site_names())
        assert eventually(lambda: coordinator.register.find_fault(serial_of(stolen.certificate)) is not None)
        assert coordinator.register.find_fault(serial_of(late.certificate)) is None


@pytest.mark.processes
def test_ledger_that_is_lost_altogether_has_its_members_again_but_is_not_made_by_a_mistyped_command(
    federation: Federation,
) -> None:
    with Served(federation.folder) as served:
        federation.join(served, ROTATED)
    for file in federation.folder.glob("ledger.sqlite*"):
        file.unlink()

    refused = federation.server("revoke", ROTATED, "--reason", "x", "--coordinator-dir", federation.folder).error
    assert "there is no ledger" in refused
    assert "--database" in refused

    with Served(federation.folder) as served:
        assert served.fault(federation.identity(ROTATED)) == ""
    assert federation.states()[ROTATED] == ["in use"]
