"""`keys.json` from the coordinator's register and its file of trusted keys."""

from __future__ import annotations

from pathlib import Path

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.proofs.signing.signing_key import PublicKey, SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.members.recovery import open_register
from tests.coordinator import fresh_key
from tests.typed import Run


def test_keys_of_officers_sites_and_the_log_are_written_with_their_fingerprints(run: Run, tmp_path: Path) -> None:
    folder = CoordinatorFolder(tmp_path / "coordinator")
    where = ["--coordinator-dir", folder.path, "--output", tmp_path / "keys.json"]
    assert run("init", "--host", "127.0.0.1", "--coordinator-dir", folder.path).code == 0
    assert "trust.json is missing" in run("keys", *where).error
    authority = folder.read_authority()
    with Ledger(folder.ledger) as ledger:
        register, _ = open_register(folder, ledger)
        for name in ("hospital-1", "hospital-2", "hospital-3"):
            register.adopt(authority.issue(fresh_key(), MemberRole.SITE, name, utc_now()))
        register.revoke("hospital-2", "stolen")
    held = {
        name: TrustedKey(name, role, SigningKey.generate().public)
        for name, role in (("officer", Role.OFFICER), ("hospital-1", Role.SITE), ("hospital-2", Role.SITE))
    }
    for key in held.values():
        TrustedKeys.change(folder.trust, lambda keys, key=key: keys.add(key))  # type: ignore[misc]

    shown = run("keys", *where, "--json").json

    written = TrustedKeys.read(tmp_path / "keys.json")
    log = PublicKey.read(folder.log_key.with_suffix(".pub"))
    assert {key.name: key.key for key in written.keys if key.name != "log"} == {n: k.key for n, k in held.items()}
    assert [key.key for key in written.of(Role.LOG)] == [log]
    assert {row["name"]: row["fingerprint"] for row in shown["keys"]}["officer"] == held["officer"].key.key_id
    assert {row["name"]: row["member"] for row in shown["keys"]} == {
        "officer": "",
        "hospital-1": "yes",
        "hospital-2": "no longer",
        "log": "",
    }
    assert shown["without_key"] == ["hospital-3"]
    assert "is there already" in run("keys", *where).error


def test_folder_that_is_none_of_a_coordinators_is_said_to_be_so(run: Run, tmp_path: Path) -> None:
    for command in (["members"], ["revoke", "x", "--reason", "y"], ["requests"], ["request", "x"]):
        assert "is no coordinator's folder; name it with --coordinator-dir" in (
            run(*command, "--coordinator-dir", tmp_path / "nix").error
        )
