"""`site.toml`: everything that a site's processes are started from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fedmunkey.common.programs.settings_file import SettingsFile, on_this_machine
from fedmunkey.common.settings.settings_text import Address

SUPERNODE_READY = "SuperNode of "
"""What the SuperNode's first line begins with; the coordinator may be out of reach then."""


class SiteFile(SettingsFile):
    """What `site.toml` says.

    Attributes
    ----------
    superlink, deletion_service : str
        Where the coordinator's are reached.
    insecure_sums : bool
        Whether the site takes part in `exact` rounds of fewer than three sites, in which others could learn its sums.
    runtime : str
        Where the SuperNode's own subprocesses find it.
    """

    site_dir: Path
    superlink: Address
    deletion_service: Address
    insecure_sums: bool = False
    runtime: Annotated[Address, on_this_machine("read what is trained")] = "127.0.0.1:9101"

    @property
    def folder(self) -> Path:
        """The site's folder: its key store, its identity and its keys."""
        return self.site_dir
