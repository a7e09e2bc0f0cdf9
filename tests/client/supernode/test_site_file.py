from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.common.errors import InvalidSetting

TEXT = 'site-dir = "a"\nsuperlink = "c.example:8443"\ndeletion-service = "c.example:9440"\n'


def test_paths_are_meant_from_the_files_folder(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(TEXT)

    read = SiteFile.read(path)

    assert (read.site_dir, read.identity) == (tmp_path / "a", tmp_path / "a" / "identity")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('runtime = "192.0.2.1:9101"', "runtime = 192.0.2.1:9101: whoever reaches it can read what is trained"),
        ('site = "hospital-a"', "unknown setting site: did you mean site-dir?"),
        ('evaluation = "full"', "evaluation = full"),
        ("fewest-evaluated = 19", "fewest-evaluated = 19"),
        ("start-seconds = 'long'", "start-seconds = long"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_value(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(TEXT + text)

    with pytest.raises(InvalidSetting) as refused:
        SiteFile.read(path)

    assert str(refused.value).startswith(f"{path}: {named}")


@pytest.mark.parametrize(
    ("text", "evaluation"),
    [
        ("", {"fewest-evaluated": 100}),
        ('evaluation = "off"', {"evaluation": "off", "fewest-evaluated": 100}),
        ('evaluation = "counts"\nfewest-evaluated = 40', {"evaluation": "counts", "fewest-evaluated": 40}),
    ],
)
def test_sites_app_hears_what_the_file_says_of_evaluations(
    tmp_path: Path, text: str, evaluation: dict[str, object]
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(TEXT + text)

    told = SiteFile.read(path).node_config

    assert told == {"site-dir": str(tmp_path / "a"), "insecure-sums": False, **evaluation}
