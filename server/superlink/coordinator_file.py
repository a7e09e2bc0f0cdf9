"""`coordinator.toml`: everything that the coordinator's processes are started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.programs.settings_file import SettingsFile, on_this_machine
from fedmunkey.common.settings.addresses import loopback_address
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import Address, ConfigValue, OptionalAddress, kebab
from fedmunkey.server.ledger.due import DUE_DAYS
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder, ledger_of

DELETION_SERVICE, SUPERLINK, RENEWALS = "deletion-service", "superlink", "renewals"
"""The coordinator's programs."""

SUPERLINK_READY = "SuperLink for sites at "
"""What the SuperLink's first line begins with, once it serves."""


class CoordinatorFile(SettingsFile):
    """What `coordinator.toml` says.

    Attributes
    ----------
    superlink : str
        Where sites reach Flower's SuperLink, and nothing of it but what sites need.
    superlink_control : str
        Where runs are started; on loopback, so that nobody else's machine can.
    deletion_service, joining : str
        Where sites and officers reach the deletion service, and where new members join.
    metrics : str
        Where Prometheus metrics are served; nowhere if empty.
    database, keys, due_days
        As for `munkey-server serve`; without a database, the ledger is where the coordinator's folder has it.
    run : dict
        Settings of training runs (docs/settings.md).
    """

    coordinator_dir: Path
    superlink: Address = "0.0.0.0:8443"
    superlink_control: Annotated[Address, on_this_machine("start runs")] = "127.0.0.1:8444"
    deletion_service: Address = "0.0.0.0:9440"
    joining: Address = "0.0.0.0:9441"
    metrics: OptionalAddress = ""
    database: str = ""
    keys: Path | None = None
    due_days: int = Field(DUE_DAYS, ge=1, le=365)
    run: dict[str, ConfigValue] = Field(default_factory=dict)

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says, the settings of runs as well; as `read`."""
        if "enrolment" in content:
            raise InvalidSetting(f"{path}: enrolment is called joining; rename it")
        checked = super().parse(content, path)
        try:
            checked.run_settings()
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: run: {error}") from None
        return checked

    @property
    def folder(self) -> Path:
        """Holds identity, certificate authority, ledger, and what Flower and runs write."""
        return self.coordinator_dir

    @property
    def listening(self) -> Mapping[str, str]:
        """Where the coordinator's programs listen."""
        names = ("superlink", "superlink_control", "deletion_service", "joining", "metrics")
        return {kebab(name): getattr(self, name) for name in names}

    @property
    def ledger(self) -> str:
        """The ledger, an SQLite file or a PostgreSQL address."""
        return ledger_of(self.database, CoordinatorFolder(self.coordinator_dir))

    @property
    def flower_database(self) -> Path:
        """Where the SuperLink keeps its nodes and runs, so that a site is the same node after a restart."""
        return self.flower_home / "superlink.sqlite"

    @property
    def runs(self) -> Path:
        """Where runs leave their weights and events."""
        return self.coordinator_dir / "weights"

    def run_settings(self, overrides: dict[str, ConfigValue] | None = None) -> Settings:
        """Return the settings of a run; `overrides` take precedence over the file's. Raises `InvalidSetting`."""
        own: dict[str, ConfigValue] = {
            "deletion-service": loopback_address(self.deletion_service),
            "deletion-identity": str(self.identity),
            "output-dir": str(self.runs),
        }
        return Settings.parse({**own, **self.run, **(overrides or {})})
