"""What commands of `munkey-server` take from `coordinator.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmunkey.common.programs.configured import Configuration
from fedmunkey.common.settings.addresses import is_loopback, loopback_address, split_address

# What reads the file and the coordinator's certificate is imported where there is a file.
if TYPE_CHECKING:
    from fedmunkey.server.superlink.coordinator_file import CoordinatorFile


def _read(path: Path) -> Mapping[str, Any]:
    from fedmunkey.server.superlink.coordinator_file import CoordinatorFile

    file = CoordinatorFile.read(path)
    return {
        "coordinator_dir": file.coordinator_dir,
        "database": file.database or None,
        "service": loopback_address(file.deletion_service),
        "joining_address": _joining_address(file),
        "where": file.coordinator_dir,
        "keys": file.keys,
    }


def _joining_address(file: CoordinatorFile) -> str | None:
    """Return where others join: the first host of the coordinator's certificate where it listens everywhere."""
    from fedmunkey.common.errors import InvalidIdentity
    from fedmunkey.common.identities import Identity
    from fedmunkey.server.members.authority import hosts_of

    host, port = split_address(file.joining)
    if host.strip("[]") not in ("0.0.0.0", "::"):  # noqa: S104 (it is compared)
        return file.joining
    try:
        hosts = hosts_of(Identity.read(file.identity).certificate)
    except InvalidIdentity:
        return None
    others = [name for name in hosts if not is_loopback(name)] or hosts
    return f"[{others[0]}]:{port}" if ":" in others[0] else f"{others[0]}:{port}"


COORDINATOR = Configuration(
    "coordinator.toml", "MUNKEY_COORDINATOR_FILE", _read, "coordinator_dir", {"coordinator_dir": ("database",)}
)
"""`coordinator.toml`, as commands find it."""
