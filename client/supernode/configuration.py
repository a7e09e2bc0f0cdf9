"""What commands of `munkey-client` take from `site.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmunkey.common.programs.configured import Configuration


def _read(path: Path) -> Mapping[str, Any]:
    # Imported where there is a file: pydantic takes its time.
    from fedmunkey.client.supernode.site_file import SiteFile

    file = SiteFile.read(path)
    return {
        "site_dir": file.site_dir,
        "service": file.deletion_service,
        "where": file.site_dir,
        "identity": file.identity if file.identity.exists() else None,
    }


SITE = Configuration(
    "site.toml",
    "MUNKEY_SITE_FILE",
    _read,
    "site_dir",
    # An officer asks from any machine, a site's as well, and shows an identity of its own.
    {"site_dir": ("asking", "identity")},
    lesser={"identity": "site_dir"},
    # Where nobody is called by default, nobody is.
    replacing=("service",),
)
"""`site.toml`, as commands find it."""
