"""`site.toml`: everything that a site's processes are started from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from common.deletion_channel import is_loopback, split_address
from common.errors import InvalidSetting
from common.settings_file import SettingsFile
from common.settings_text import Address

SUPERNODE_READY = "SuperNode of "
"""What the SuperNode's first line begins with; the coordinator may be out of reach then."""


class SiteFile(SettingsFile):
    """What `site.toml` says.

    Attributes
    ----------
    site_dir : Path
        The site's folder: its key store, its identity and its keys.
    superlink, deletion_service : str
        Where the coordinator's are reached.
    runtime : str
        Where the SuperNode's own subprocesses find it, on loopback.
    """

    site_dir: Path
    superlink: Address
    deletion_service: Address
    runtime: Address = "127.0.0.1:9101"

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says; as `read`."""
        checked = super().parse(content, path)
        if not is_loopback(split_address(checked.runtime)[0]):
            raise InvalidSetting(
                f"{path}: runtime = {checked.runtime}: whoever reaches it can read what is trained; give it an address "
                "of this machine only, such as 127.0.0.1:9101"
            )
        return checked

    @property
    def identity(self) -> Path:
        """The folder of the site's identity."""
        return self.site_dir / "identity"

    @property
    def flower_home(self) -> Path:
        """Where Flower keeps what it writes."""
        return self.site_dir / "flower"
