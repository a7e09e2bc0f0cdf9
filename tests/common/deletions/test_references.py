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


def test_another_secret_gives_other_references() -> None:
    assert FederationSecret(KEY).reference("patient-1") != FederationSecret(KEY[::-1]).reference("patient-1")


def test_generated_secrets_differ() -> None:
    references = {FederationSecret.generate().reference("patient-1") for _ in range(10)}

    assert len(references) == 10


def test_written_secret_gives_the_same_references_when_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    FederationSecret(KEY).write(path)

    assert FederationSecret.read(path).reference("patient-1") == FederationSecret(KEY).reference("patient-1")


def test_only_the_owner_may_read_the_file_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        FederationSecret(KEY).write(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secret_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    FederationSecret(KEY).write(path)
    before = path.read_bytes()

    with pytest.raises(FileExistsError):
        FederationSecret.generate().write(path)
    assert path.read_bytes() == before


def test_repr_and_str_do_not_show_the_key() -> None:
    secret = FederationSecret(b"sixteen letters!")

    for text in (repr(secret), str(secret), f"{secret}"):
        assert "sixteen" not in text
        assert b"sixteen letters!".hex() not in text


def test_short_key_is_refused() -> None:
    FederationSecret(bytes(16))
    with pytest.raises(InvalidInput, match="has 15 bytes; it must have at least 16"):
        FederationSecret(bytes(15))


def test_missing_file_names_the_file_and_the_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no-secret cannot be read; name the file with --secret$"):
        FederationSecret.read(tmp_path / "no-secret")


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        FederationSecret.read(tmp_path)


@pytest.mark.parametrize("content", [b"not hexadecimal", b"abc", b"\xff\xfe\x00\x81"])
def test_file_without_hexadecimal_digits_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(InvalidInput, match="does not hold a federation secret") as caught:
        FederationSecret.read(path)
    assert "not hexadecimal" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "00ff\n"])
def test_file_with_too_short_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(InvalidInput, match="must have at least 16"):
        FederationSecret.read(path)


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o606])
def test_secret_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "federation.secret"
    FederationSecret.generate().write(path)
    path.chmod(mode)

    with pytest.raises(InvalidInput, match=f"run chmod 600 {path}"):
        FederationSecret.read(path)
