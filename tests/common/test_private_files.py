"""Files that only their owner may use, and files that are replaced: whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.private_files import read_private, replace_file, write_private


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def no_links(source: Path, _target: Path) -> None:
    raise OSError(errno.EPERM, "Operation not permitted", str(source))


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_secret_is_its_owners_and_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "secret"
    write_private(path, b"first")
    with pytest.raises(FileExistsError):
        write_private(path, b"second")

    assert (read_private(path, "a secret"), mode_of(path)) == (b"first", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"first")
    replace_file(path, b"second", 0o600)

    assert (path.read_bytes(), mode_of(path)) == (b"second", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_private, replace_file])
def test_nothing_is_left_of_a_file_that_cannot_be_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert callable(write)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", b"content")

    assert list(tmp_path.iterdir()) == []


def test_file_that_others_can_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"content")
    path.chmod(0o640)

    with pytest.raises(InvalidProof, match=r"is a secret that others than its owner can use \(mode 0640\)"):
        read_private(path, "a secret", error=InvalidProof)
    with pytest.raises(InvalidProof, match=r"cannot be read .*it should be a secret"):
        read_private(tmp_path / "none", "a secret", error=InvalidProof)
