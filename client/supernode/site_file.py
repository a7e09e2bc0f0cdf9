"""`site.toml`: everything that a site's processes are started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedmunkey.common.programs.settings_file import SettingsFile, on_this_machine
from fedmunkey.common.settings.settings_text import Address

SUPERNODE_READY = "SuperNode of "
"""What the SuperNode's first line begins with; the coordinator may be out of reach then."""

APPS_READY = "apps for the SuperNode at "


class SiteFile(SettingsFile):
    """What `site.toml` says.

    Attributes
    ----------
    superlink, deletion_service : str
        Where the coordinator's are reached.
    supernode_dir : Path, optional
        Where the SuperNode has its copy of the site's identity, and keeps what it writes, if it runs under an account
        of its own (`munkey-client up --only supernode`); that account reads nothing in `site_dir`.
    insecure_sums : bool
        Whether the site takes part in `exact` rounds of fewer than three sites, in which others could learn its sums.
    evaluation : str, optional
        What evaluations tell the coordinator: nothing (`off`), or rounded counts of right answers (`counts`); by
        default counts where the site has promised `empirical`, and nothing elsewhere.
    fewest_evaluated : int
        Held-out test records below which nothing is told.
    runtime : str
        Where the SuperNode's own subprocesses find it.
    """

    site_dir: Path
    superlink: Address
    deletion_service: Address
    supernode_dir: Path | None = None
    insecure_sums: bool = False
    evaluation: Literal["off", "counts"] | None = None
    fewest_evaluated: int = Field(100, ge=20)
    runtime: Annotated[Address, on_this_machine("read what is trained")] = "127.0.0.1:9101"

    @property
    def node_config(self) -> dict[str, bool | float | int | str]:
        """What the site's app hears of this file."""
        chosen = {} if self.evaluation is None else {"evaluation": self.evaluation}
        return {
            "site-dir": str(self.site_dir),
            "insecure-sums": self.insecure_sums,
            "fewest-evaluated": self.fewest_evaluated,
            **chosen,
        }

    @property
    def listening(self) -> Mapping[str, str]:
        """Where the site's programs listen."""
        return {"runtime": self.runtime}

    @property
    def folder(self) -> Path:
        """The site's folder: its key store, its identity and its keys."""
        return self.site_dir

    @property
    def supernode(self) -> SiteFile:
        """What the SuperNode is started from: the same, with its own folder where it has one."""
        return self if self.supernode_dir is None else self.model_copy(update={"site_dir": self.supernode_dir})
