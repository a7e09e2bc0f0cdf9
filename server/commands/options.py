"""Options that several commands of `munkey-server` share, and what is read by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.identities import Identity
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import DATABASE_VARIABLE, CoordinatorFolder
from fedmunkey.server.transparency_log.log import head_signer
from fedmunkey.server.transparency_log.log_key import open_log_key

DEFAULT_ADDRESS: str = Settings.model_fields["deletion_service"].default

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        "--ledger",
        envvar=DATABASE_VARIABLE,
        help="The ledger: an SQLite file, made if there is none, or postgresql://user@host/database; "
        "by default where the coordinator's folder has it, or ledger.sqlite. "
        f"A password in it belongs into {DATABASE_VARIABLE} or ~/.pgpass, which no other user reads.",
        show_default=False,
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--coordinator-dir", help="The coordinator's folder, made by munkey-server init: connections are mutual TLS."
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        help="File of trusted keys: unsigned requests and answers without a receipt are refused. "
        "trust.json in the coordinator's folder by default, if it is there."
    ),
]
LogKeyOption = Annotated[
    Path | None,
    typer.Option(
        help="Key of the transparency log; in the coordinator's folder or beside the ledger by default, "
        "made if missing."
    ),
]


def folder_of(coordinator_dir: Path | None) -> CoordinatorFolder | None:
    """Return the coordinator's folder; None where members are not known by certificates."""
    return None if coordinator_dir is None else CoordinatorFolder(coordinator_dir)


def identity_of(coordinator_dir: Path | None) -> Identity | None:
    """Return the coordinator's own identity; None where connections are in plain text."""
    return None if coordinator_dir is None else CoordinatorFolder(coordinator_dir).read_identity()


def trust_of(keys: Path | None, folder: CoordinatorFolder | None) -> Path | None:
    """Return the file of trusted keys, that of the coordinator's folder where none is named."""
    return folder.trust if keys is None and folder is not None and folder.trust.exists() else keys


def log_key_of(
    log_key: Path | None, database: str, folder: CoordinatorFolder | None, ledger: Ledger
) -> tuple[Path, SigningKey]:
    """Return the key of a ledger's transparency log and the file that it is in, which is made if it is missing.

    Raises as `open_log_key`.
    """
    place = log_key or (None if folder is None else folder.log_key)
    return open_log_key(place, database, head_signer(ledger.engine))
