"""`site.toml`: everything that a site's processes are started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedmunkey.common.programs.settings_file import SettingsFile, on_this_machine
from fedmunkey.common.settings.settings_text import Address, OptionalAddress

SUPERNODE_READY = "SuperNode of "
"""What the SuperNode's first line begins with; the coordinator may be out of reach then."""

APPS_READY = "apps for the SuperNode at "


class SiteFile(SettingsFile):
    """What `site.toml` says; what each line means is in its description, of which docs/files.md is made."""

    site_dir: Path = Field(description="The site's folder: its key store, its identity and its keys.")
    superlink: Address = Field(description="Where the coordinator's SuperLink is reached.")
    deletion_service: Address = Field(description="Where the coordinator's deletion service is reached.")
    supernode_dir: Path | None = Field(
        None,
        description="Where the SuperNode has its copy of the site's identity, and keeps what it writes, if it has an "
        "account of its own (`munkey-client up --only supernode`), which reads nothing in `site-dir`.",
    )
    insecure_sums: bool = Field(
        False,
        description="Whether the site takes part in `exact` rounds of fewer than three sites, in which others could "
        "learn its sums.",
    )
    evaluation: Literal["off", "counts"] | None = Field(
        None,
        description="What evaluations tell the coordinator: nothing (`off`), or rounded counts of right answers "
        "(`counts`); by default counts where the site has promised `empirical`, and nothing elsewhere.",
    )
    fewest_evaluated: int = Field(100, ge=20, description="Held-out test records below which nothing is told.")
    runtime: Annotated[Address, on_this_machine("read what is trained")] = Field(
        "127.0.0.1:9101", description="Where the SuperNode's own subprocesses find it: on this machine only."
    )

    metrics: OptionalAddress = Field(
        "", description="Where the agent serves Prometheus metrics of the site; nowhere if empty."
    )

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
        return {"runtime": self.runtime, **({"metrics": self.metrics} if self.metrics else {})}

    @property
    def folder(self) -> Path:
        """The site's folder: its key store, its identity and its keys."""
        return self.site_dir

    @property
    def supernode(self) -> SiteFile:
        """What the SuperNode is started from: the same, with its own folder where it has one."""
        return self if self.supernode_dir is None else self.model_copy(update={"site_dir": self.supernode_dir})
