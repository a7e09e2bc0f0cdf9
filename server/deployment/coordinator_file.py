"""`coordinator.toml`: everything that the coordinator's processes are started from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field

from common.deletion_channel import is_loopback, split_address
from common.errors import InvalidSetting
from common.settings import Settings
from common.settings_file import SettingsFile
from common.settings_text import Address, ConfigValue, OptionalAddress
from server.ledger_due import DUE_DAYS

IDENTITY = "identity"
"""The folder of the coordinator's identity, in its own folder."""

SUPERLINK_READY = "SuperLink for sites at "
"""What the SuperLink's first line begins with, once it serves."""

_OWN = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104


class CoordinatorFile(SettingsFile):
    """What `coordinator.toml` says.

    Attributes
    ----------
    coordinator_dir : Path
        Holds identity, certificate authority, ledger, and what Flower and runs write.
    superlink : str
        Where sites reach Flower's SuperLink, and nothing of it but what sites need.
    superlink_control : str
        Where runs are started; on loopback, so that nobody else's machine can.
    deletion_service, enrolment : str
        Where sites and requesters reach the deletion service, and where new members join.
    metrics : str
        Where Prometheus metrics are served; nowhere if empty.
    database : str
        The ledger, as for `munkey-server serve`; in the coordinator's folder if empty.
    keys : Path or None
        The file of trusted keys, as for `munkey-server serve`.
    due_days : int
        As for `munkey-server serve`.
    run : dict
        Settings of training runs (docs/settings.md).
    """

    coordinator_dir: Path
    superlink: Address = "0.0.0.0:8443"
    superlink_control: Address = "127.0.0.1:8444"
    deletion_service: Address = "0.0.0.0:9440"
    enrolment: Address = "0.0.0.0:9441"
    metrics: OptionalAddress = ""
    database: str = ""
    keys: Path | None = None
    due_days: int = Field(DUE_DAYS, ge=1, le=365)
    run: dict[str, ConfigValue] = Field(default_factory=dict)

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says, the settings of runs as well; as `read`."""
        checked = super().parse(content, path)
        try:
            checked.run_settings()
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: run: {error}") from None
        if not is_loopback(split_address(checked.superlink_control)[0]):
            raise InvalidSetting(
                f"{path}: superlink-control = {checked.superlink_control}: whoever reaches it can start runs; give it "
                "an address of this machine only, such as 127.0.0.1:8444"
            )
        return checked

    @property
    def identity(self) -> Path:
        """The folder of the coordinator's identity."""
        return self.coordinator_dir / IDENTITY

    @property
    def ledger(self) -> str:
        """The ledger, an SQLite file or a PostgreSQL address."""
        return self.database or str(self.coordinator_dir / "ledger.sqlite")

    @property
    def flower_home(self) -> Path:
        """Where Flower keeps what it writes."""
        return self.coordinator_dir / "flower"

    @property
    def flower_database(self) -> Path:
        """Where the SuperLink keeps its nodes and runs, so that a site is the same node after a restart."""
        return self.flower_home / "superlink.sqlite"

    @property
    def runs(self) -> Path:
        """Where runs leave their weights and events."""
        return self.coordinator_dir / "weights"

    def run_settings(self, overrides: dict[str, ConfigValue] | None = None) -> Settings:
        """Return the settings of a run.

        Parameters
        ----------
        overrides : dict, optional
            Take precedence over the file's.

        Raises
        ------
        InvalidSetting
            If a setting is unknown or its value cannot be used.
        """
        own: dict[str, ConfigValue] = {
            "deletion-service": loopback_address(self.deletion_service),
            "deletion-identity": str(self.identity),
            "output-dir": str(self.runs),
        }
        return Settings.parse({**own, **self.run, **(overrides or {})})


def loopback_address(address: str) -> str:
    """Return where this machine reaches a service of its own that listens everywhere."""
    host, port = split_address(address)
    return f"{_OWN.get(host, host)}:{port}"
