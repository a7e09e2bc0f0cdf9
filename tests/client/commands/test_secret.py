from __future__ import annotations

from pathlib import Path

from fedmunkey.common.deletions.references import FederationSecret

from .conftest import Run


def test_secret_is_new_and_its_owners_only(run: Run, tmp_path: Path) -> None:
    first, second = tmp_path / "first.secret", tmp_path / "second.secret"

    assert (run("secret", first).code, run("secret", second).code) == (0, 0)

    assert first.stat().st_mode & 0o777 == 0o600
    assert FederationSecret.read(first).reference("x") != FederationSecret.read(second).reference("x")


def test_secret_is_never_overwritten(run: Run, secret: Path) -> None:
    before = secret.read_bytes()

    assert "there already" in run("secret", secret).error
    assert secret.read_bytes() == before


def test_secret_in_a_folder_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("secret", tmp_path / "absent" / "federation.secret").error
