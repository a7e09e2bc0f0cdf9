from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmunkey.common.deletions.references import REFERENCE_BYTES, FederationSecret
from fedmunkey.common.errors import InvalidInput

KEY = bytes(range(32))


@given(key=st.binary(min_size=16, max_size=80), identifier=st.text(st.characters(exclude_categories=["Cs"])))
def test_reference_is_the_hmac_of_the_identifier(key: bytes, identifier: str) -> None:
    expected = hmac.new(key, identifier.encode(), hashlib.sha256).digest()

    assert FederationSecret(key).reference(identifier) == expected
    assert len(expected) == REFERENCE_BYTES


def test_every_secret_gives_references_of_its_own() -> None:
    secrets = [FederationSecret(KEY), FederationSecret(KEY[::-1]), *(FederationSecret.generate() for _ in range(10))]

    assert len({secret.reference("patient-1") for secret in secrets}) == 12


def test_secret_is_written_once_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        FederationSecret(KEY).write(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        FederationSecret.generate().write(path)
    assert FederationSecret.read(path).reference("patient-1") == FederationSecret(KEY).reference("patient-1")


def test_repr_and_str_do_not_show_the_key() -> None:
    secret = FederationSecret(b"sixteen letters!")

    for text in (repr(secret), str(secret), f"{secret}"):
        assert "sixteen" not in text
        assert b"sixteen letters!".hex() not in text


def test_short_key_is_refused() -> None:
    FederationSecret(bytes(16))
    with pytest.raises(InvalidInput, match="has 15 bytes; it must have at least 16"):
        FederationSecret(bytes(15))


def test_file_that_cannot_be_read_is_named_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no-secret cannot be read; name the file with --secret$"):
        FederationSecret.read(tmp_path / "no-secret")
    with pytest.raises(InvalidInput, match="cannot be read"):
        FederationSecret.read(tmp_path)


NO_SECRET = "does not hold a federation secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not hexadecimal", NO_SECRET),
        (b"abc", NO_SECRET),
        (b"\xff\xfe\x00\x81", NO_SECRET),
        (b"", "must have at least 16"),
        (b"00ff\n", "must have at least 16"),
    ],
)
def test_file_without_a_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(InvalidInput, match=message) as caught:
        FederationSecret.read(path)
    assert "not hexadecimal" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o606])
def test_secret_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "federation.secret"
    FederationSecret.generate().write(path)
    path.chmod(mode)

    with pytest.raises(InvalidInput, match=f"run chmod 600 {path}"):
        FederationSecret.read(path)
