"""`trust end`, `require`, and `trust add` in folders that are not there yet, as a person types them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.proofs.signing.signing_key import PublicKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.server.cli import main as server_main
from tests.coordinator import running_coordinator
from tests.typed import runner

from .conftest import SITE, Run


@pytest.fixture
def officer(run: Run, tmp_path: Path) -> PublicKey:
    """An officer's key, in a file and in `trust.json`."""
    run("signing-keys", "new", tmp_path / "officer.pem")
    run("trust", "add", "officer", tmp_path / "officer.pub", "--role", "officer", "--in", tmp_path)
    return PublicKey.read(tmp_path / "officer.pub")


def test_key_ends_by_its_name_or_its_id(run: Run, officer: PublicKey, tmp_path: Path) -> None:
    said = run("trust", "end", "officer", "--at", "2027-01-01", "--in", tmp_path).out
    assert "ends on 2027-01-01T00:00:00Z; certificates, receipts and requests that were heard before stay good" in said
    assert TrustedKeys.read(tmp_path / "trust.json").keys[0].end == datetime(2027, 1, 1, tzinfo=UTC)

    assert run("trust", "end", officer.key_id[:8], "--in", tmp_path / "trust.json").code == 0
    (key,) = TrustedKeys.read(tmp_path / "trust.json").keys
    assert key.end is not None
    assert abs((datetime.now(UTC) - key.end).total_seconds()) < 60
    assert key.revoked is None


def test_revoking_says_what_it_does_to_the_past(run: Run, officer: PublicKey, tmp_path: Path) -> None:
    said = run("trust", "revoke", officer.key_id[:8], "--in", tmp_path).out

    assert "certificates and receipts that it has signed do not hold any more, from before either" in said


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["end", "nobody"], "'nobody' names 0 of the keys here"),
        (["end", "officer", "--at", "soon"], "soon"),
        (["require", "2"], "2 officers cannot sign: 1 officers' names are trusted here"),
        (["require", "0"], "0"),
    ],
)
def test_mistake_is_one_line_and_changes_nothing(
    run: Run, officer: PublicKey, tmp_path: Path, words: list[str], fault: str
) -> None:
    before = (tmp_path / "trust.json").read_bytes()

    assert fault in run("trust", *words, "--in", tmp_path).error
    assert (tmp_path / "trust.json").read_bytes() == before
    assert officer.key_id


def test_number_of_officers_is_set_and_shown(run: Run, officer: PublicKey, tmp_path: Path) -> None:
    run("signing-keys", "new", tmp_path / "second.pem")
    run("trust", "add", "second officer", tmp_path / "second.pub", "--role", "officer", "--in", tmp_path)

    assert "once officers of 2 names have signed" in run("trust", "require", "2", "--in", tmp_path).out
    assert "once officers of 2 names have signed" in run("trust", "show", "--in", tmp_path).out
    assert TrustedKeys.read(tmp_path / "trust.json").officers == 2
    assert officer.key_id


def test_site_trusts_an_officer_before_it_joins(run: Run, officer: PublicKey, tmp_path: Path) -> None:
    folder = SiteFolder(tmp_path / "site")
    with running_coordinator(tmp_path / "at-the-coordinator") as coordinator:
        run("trust", "add", "officer", tmp_path / "officer.pub", "--role", "officer", "--in", folder.path)
        joined = run("join", coordinator.invite(SITE), "--site-dir", folder.path, "--json").json

    assert joined["trusted_officers"] == 1
    assert folder.trust.is_file()
    assert [key.key for key in TrustedKeys.read(folder.trust).of(Role.OFFICER)] == [officer]
    assert folder.path.stat().st_mode & 0o077 == 0


def test_coordinator_trusts_an_officer_before_it_is_set_up(
    officer: PublicKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runner("munkey-server", server_main, monkeypatch, capsys)
    folder = tmp_path / "coordinator"

    run("trust", "add", "officer", tmp_path / "officer.pub", "--role", "officer", "--in", folder)
    made = run("init", "--host", "127.0.0.1", "--coordinator-dir", folder)

    assert made.code == 0, made.err
    assert TrustedKeys.read(folder / "trust.json").keys[0].key == officer


def test_file_where_a_folder_belongs_is_one_line(
    officer: PublicKey, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "place").write_text("something")
    server = runner("munkey-server", server_main, monkeypatch, capsys)

    init = server("init", "--host", "127.0.0.1", "--coordinator-dir", tmp_path / "place").error
    add = run("trust", "add", "a", officer.raw.hex(), "--role", "site", "--in", tmp_path / "place" / "trust.json").error
    with running_coordinator(tmp_path / "at-the-coordinator") as coordinator:
        join = run("join", coordinator.invite(SITE), "--site-dir", tmp_path / "place").error

    assert "place cannot be made a folder (File exists)" in init
    assert "place/trust.json cannot be written (File exists); name another place" in add
    assert "cannot be made a folder (Not a directory)" in join


def test_request_for_longer_than_a_year_is_not_signed(run: Run, tmp_path: Path) -> None:
    words = ["forget", "--as", "officer", "--subject", "a", "--secret", tmp_path / "none"]

    assert "--valid-days" in run(*words, "--valid-days", "367").error
