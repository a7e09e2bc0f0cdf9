from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedmunkey.client.importing.pictures import Choices, UnusablePicture, read_picture
from fedmunkey.common.errors import InvalidInput


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(100), "no PNG, JPEG, DICOM or NIfTI"),
        (b"\x1f\x8b" + bytes(100), "no PNG, JPEG, DICOM or NIfTI"),
        (bytes(128) + b"DICM" + b"\xff" * 64, "does not say how it is encoded"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged"),
        ((348).to_bytes(4, "little") + bytes(340) + b"n+1\0" + bytes(4), "damaged|orient"),
    ],
)
def test_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "PATIENT-17"
    path.write_bytes(content)

    with pytest.raises(UnusablePicture, match=reason) as refused:
        read_picture(path, Choices())
    assert "PATIENT" not in str(refused.value)


@pytest.mark.parametrize(("name", "reason"), [("absent", "no such file"), (".", "folder"), ("a\0b", "cannot be read")])
def test_path_without_a_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UnusablePicture, match=reason):
        read_picture(tmp_path / name, Choices())


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UnusablePicture, match="a pipe or a device"):
        read_picture(tmp_path / "pipe", Choices())


def test_choice_of_a_slice_is_a_word_or_a_number() -> None:
    assert Choices.parse("middle") == Choices(middle_slice=True)
    assert Choices.parse("-3") == Choices(volume_slice=-3)
    assert Choices.parse("") == Choices()
    with pytest.raises(InvalidInput, match="top"):
        Choices.parse("top")
