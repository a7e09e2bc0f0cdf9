from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.client.site import SiteFolder
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys

from .conftest import Run


def test_key_and_its_public_part_are_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "officer.pem"

    shown = run("signing-keys", "new", path).out
    again = run("signing-keys", "show", path, "--json").json

    key = SigningKey.read(path).public
    assert PublicKey.read(tmp_path / "officer.pub") == key
    assert key.raw.hex() in shown
    assert again == {"key": key.raw.hex(), "key_id": key.key_id, "file": str(path)}
    assert path.stat().st_mode & 0o777 == 0o600


def test_key_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "officer.pem"
    run("signing-keys", "new", path)
    before = path.read_bytes()

    assert "never overwritten" in run("signing-keys", "new", path).error
    assert path.read_bytes() == before


def test_sites_key_lies_in_its_folder(run: Run, folder: SiteFolder) -> None:
    run("signing-keys", "new", "--site-dir", folder.path)

    assert SigningKey.read(folder.signing_key)
    assert "either a file or" in run("signing-keys", "new").error
    assert "either a file or" in run("signing-keys", "show", "x.pem", "--site-dir", folder.path).error


def test_keys_are_trusted_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    run("signing-keys", "new", tmp_path / "officer.pem")
    key = PublicKey.read(tmp_path / "officer.pub")
    site = SigningKey.generate().public

    run("trust", "add", "officer", tmp_path / "officer.pub", "--role", "officer", "--in", tmp_path)
    run("trust", "add", "a", site.raw.hex(), "--role", "site", "--until", "2027-01-01", "--in", tmp_path / "trust.json")
    revoked = run("trust", "revoke", key.key_id[:16], "--in", tmp_path)
    listed = run("trust", "show", "--in", tmp_path, "--json").json
    table = run("trust", "show", "--in", tmp_path).out

    keys = TrustedKeys.read(tmp_path / "trust.json")
    found = [(entry.name, entry.role, entry.key) for entry in keys.keys]
    assert found == [("officer", Role.OFFICER, key), ("a", Role.SITE, site)]
    assert revoked.code == 0
    ends = [(entry["until"], entry["revoked"] is None) for entry in listed]
    assert ends == [(None, False), ("2027-01-01T00:00:00Z", True)]
    assert site.key_id[:16] in table


def test_public_part_alone_is_shown_as_what_it_is(run: Run, tmp_path: Path) -> None:
    run("signing-keys", "new", tmp_path / "key.pem")
    (tmp_path / "key.pub").chmod(0o644)
    whole = run("signing-keys", "show", tmp_path / "key.pem", "--json").json

    shown = run("signing-keys", "show", tmp_path / "key.pub").out

    assert whole["key_id"] in shown
    assert "private" not in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trust", "add", "a", "{tmp}/none.pub", "--role", "site", "--in", "{tmp}"], "cannot be read"),
        (["trust", "add", "a", "{tmp}/key.pem", "--role", "site", "--in", "{tmp}"], "no Ed25519 public key"),
        (["trust", "add", "a", "zz" * 32, "--role", "site", "--in", "{tmp}"], "hexadecimal"),
        (["trust", "add", "", "{tmp}/key.pub", "--role", "site", "--in", "{tmp}"], "printable"),
        (["trust", "add", "a", "{tmp}/key.pub", "--role", "king", "--in", "{tmp}"], "king"),
        (
            ["trust", "add", "a", "{tmp}/key.pub", "--role", "site", "--from", "2027-01-02", "--until", "2027-01-01"],
            "not after",
        ),
        (["trust", "show", "--in", "{tmp}/none"], "cannot be read"),
        (["trust", "revoke", "00000000", "--in", "{tmp}/none"], "cannot be read"),
        (["signing-keys", "show", "{tmp}/none.pub"], "cannot be read"),
    ],
)
def test_mistake_is_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, words: list[str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("signing-keys", "new", tmp_path / "key.pem")
    (tmp_path / "key.pub").chmod(0o644)

    assert part in run(*[word.replace("{tmp}", str(tmp_path)) for word in words]).error
    assert not (tmp_path / "trust.json").exists()
