"""What `munkey-server doctor` finds, each with the way out, and that a sound coordinator has nothing."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.identities import Identity
from fedmunkey.common.programs import doctor
from fedmunkey.common.programs.folder_lock import held
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.simulations.programs.free_ports import free_ports
from tests.typed import Run


@pytest.fixture
def write(run: Run, tmp_path: Path) -> Any:
    """Write `coordinator.toml` of a sound coordinator with more or other lines; return its path."""
    folder = tmp_path / "coordinator"
    assert run("init", "--host", "127.0.0.1", "--coordinator-dir", folder).code == 0
    officer = TrustedKey("officer", Role.OFFICER, SigningKey.generate().public)
    TrustedKeys.change(folder / "trust.json", lambda keys: keys.add(officer))
    card = ("--class", "benign", "--class", "malignant", "--image-shape", "1x28x28")
    assert run("card", "make", *card, "--coordinator-dir", folder).code == 0
    names = ("superlink", "superlink-control", "deletion-service", "joining", "metrics")
    ports = dict(zip(names, free_ports(len(names)), strict=True))

    def write(*lines: str, **changed: str) -> Path:
        given = {name: f'"127.0.0.1:{port}"' for name, port in ports.items()} | {
            name.replace("_", "-"): value for name, value in changed.items()
        }
        path = tmp_path / "coordinator.toml"
        text = ['coordinator-dir = "coordinator"', *(f"{name} = {value}" for name, value in given.items()), *lines]
        path.write_text("\n".join(text))
        return path

    return write


def found(run: Run, path: Path) -> list[dict[str, Any]]:
    ended = run("doctor", path, "--json")
    document = ended.document
    assert ended.code == (0 if document["sound"] else 2)
    assert document["sound"] is not bool(document["findings"])
    assert all("\n" not in finding["what"] + finding["way_out"] for finding in document["findings"])
    return list(document["findings"])


def test_sound_coordinator_has_no_findings(run: Run, write: Any) -> None:
    assert found(run, write()) == []
    assert "can be used" in run("doctor", write()).out
    assert run("up", write(), "--check").code == 0


@pytest.mark.parametrize(
    ("lines", "changed", "what", "way_out"),
    [
        (["[run]", 'encoder = "squeeznet1_0"'], {}, "encoder = squeeznet1_0: unknown", "squeezenet1_0?"),
        (["[run]", 'encoder-weights = "/nix.pth"', 'encoder = "squeezenet1_0"'], {}, "/nix.pth is missing", "correct"),
        ([], {"metrics": '"127.0.0.1:7"', "joining": '"0.0.0.0:7"'}, "joining and metrics both have port 7", ""),
        (["start-seconds = -3"], {}, "start-seconds = -3", ""),
        (['keys = "nix.json"'], {}, "nix.json cannot be read", ""),
        (['database = "postgresql://root@127.0.0.1:1/none"'], {}, "127.0.0.1:1/none cannot be reached", "start it"),
        (['database = "nix.sqlite"'], {}, "there is no ledger nix.sqlite", "copy back"),
    ],
)
def test_what_is_wrong_in_the_file_is_found(
    run: Run, write: Any, lines: list[str], changed: dict[str, str], what: str, way_out: str
) -> None:
    (finding,) = found(run, write(*lines, **changed))

    assert what in finding["what"]
    assert way_out in finding["way_out"]


def test_missing_keys_taken_ports_and_a_certificate_that_ends_are_found(
    run: Run, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CoordinatorFolder(tmp_path / "coordinator")
    path = write()
    folder.log_key.unlink()
    folder.trust.unlink()
    ends = Identity.read(folder.identity).not_after
    monkeypatch.setattr("fedmunkey.server.superlink.doctor.utc_now", lambda: ends - timedelta(days=5))
    with socket.create_server(("127.0.0.1", 0)) as other:
        write(joining=f'"127.0.0.1:{other.getsockname()[1]}"')
        said = [f"{finding['what']}: {finding['way_out']}" for finding in found(run, path)]
        with held(folder.path, ["deletion-service"]):
            # It is this coordinator's own service that has the port.
            assert not [finding for finding in found(run, path) if "listened" in finding["what"]]

    expected = ("expires in 5 days", "log-key.pem is missing", "no officer's key", "cannot be listened on")
    assert [word for word in expected if not any(word in line for line in said)] == []
    assert len(said) == len(expected)


def test_up_with_check_is_stopped_only_by_what_stops_it(run: Run, write: Any, tmp_path: Path) -> None:
    (tmp_path / "coordinator" / "trust.json").unlink()

    ended = run("up", write(), "--check")

    assert ended.code == 0
    assert "no officer's key" in ended.out
    assert run("doctor", write()).code == 2


def test_findings_of_one_fault_are_one() -> None:
    def same() -> list[doctor.Finding]:
        return [doctor.Finding("one thing", "do this")]

    assert doctor.examine([same, same]) == same()
