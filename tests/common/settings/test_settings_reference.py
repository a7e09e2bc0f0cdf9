from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_reference import settings_reference

DOCUMENT = Path(__file__).parents[3] / "docs" / "settings.md"


def row(key: str) -> list[str]:
    line = next(line for line in settings_reference().splitlines() if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_document_on_disk_is_the_rendering() -> None:
    assert DOCUMENT.read_text() == settings_reference(), "run: make docs"


def test_every_setting_has_one_row_under_a_section() -> None:
    reference = settings_reference()
    _, *sections = reference.split("\n## ")

    rows = [line for section in sections for line in section.splitlines() if line.startswith("| `")]

    assert [line.split("`")[1] for line in rows] == Settings.keys()
    assert all("\n| --- | --- | --- | --- |\n| `" in section for section in sections)


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("num-rounds", "`0`", "whole number >= 0 and <= 100000"),
        ("learns-from", '`"all"`', "`all`, `permanent`"),
        ("random-features", "`-1`", "whole number >= -1 and <= 10000"),
        ("label-smoothing", "`0.1`", "number >= 0 and < 1"),
        ("learning-rate", "`0.002`", "number > 0 and <= 10"),
        ("device", '`"auto"`', "`auto`, `cpu`, `cuda`"),
        ("image-vote", "`true`", "`true`, `false`"),
        ("image-shape", '`"1x8x8"`', "`CxHxW`, C being 1 or 3"),
        ("deletion-service", '`"127.0.0.1:9440"`', "`host:port`"),
        ("encoder-weights", '`""`', "text"),
    ],
)
def test_row_shows_default_and_allowed_values(key: str, default: str, allowed: str) -> None:
    assert row(key)[1:3] == [default, allowed]


def test_every_setting_says_what_it_means() -> None:
    assert all(row(key)[3].endswith(".") for key in Settings().to_config())
