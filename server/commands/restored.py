"""`munkey-server restored`: the ledger was put back from a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, count_of
from fedmunkey.common.proofs.restored_log import RestoredLog
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.server.commands.options import (
    DatabaseOption,
    FolderOption,
    KeysOption,
    LogKeyOption,
    folder_of,
    log_key_of,
    trust_of,
)
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import ledger_that_is_there
from fedmunkey.server.members.recovery import open_register
from fedmunkey.server.transparency_log.log import TransparencyLog
from fedmunkey.server.transparency_log.restating import enter_restored, read_statement, state_restored, write_statement


def restored(
    reason: Annotated[
        str | None, typer.Option(help="Why: one line, which everybody can read. It is signed with the log's key.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=0, help="Leaves of the log in the copy; what the log has now if nothing came since."),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Where to write what an officer is to sign.")] = None,
    signed: Annotated[
        Path | None, typer.Option(help="What munkey-client countersign has written: enter it in the log.")
    ] = None,
    database: DatabaseOption = None,
    coordinator_dir: FolderOption = None,
    keys: KeysOption = None,
    log_key: LogKeyOption = None,
) -> None:
    """Say that the ledger, and the log in it, were restored from a copy, so that sites follow them again.

    First with --reason and --save, at once after the copy was put back; an officer signs the file (munkey-client
    countersign --save), and --signed enters it. Sites that have seen more of the log than the copy held raise an alarm
    until then, keep what they had seen, and say from then on that it is lost. The service may be running meanwhile.
    What the ledger lost of its members comes back from the coordinator's folder, and is named.

    Example: munkey-server restored --reason "the disk failed" --save restored.json --coordinator-dir coordinator
    """
    if (reason is None) != (save is None) or (reason is None) == (signed is None):
        raise InvalidSetting("give --reason and --save to write a statement, or --signed to enter one")
    folder = folder_of(coordinator_dir)
    database = ledger_that_is_there(database, folder)
    trust = trust_of(keys, folder)
    with Ledger(database) as opened:
        _, key = log_key_of(log_key, database, folder, opened)
        log = TransparencyLog(opened.engine, key)
        if signed is not None:
            trusted = None if trust is None else TrustedKeys.read(trust)
            leaves = enter_restored(log, key, read_statement(signed), trusted)
            typer.echo(
                f"the log has {count_of(leaves, 'leaf', 'leaves')}, and says that it was restored; "
                "sites follow it at their next look"
            )
        elif reason is not None and save is not None:
            for line in () if folder is None else open_register(folder, opened, lost=True)[1]:
                typer.echo(line)
            statement = state_restored(log, key, reason, size, utc_now())
            write_statement(save, statement)
            typer.echo(
                f"{save}: the log was {RestoredLog.of(statement).words}; nothing is entered yet. An officer signs: "
                f"munkey-client countersign {save} --signing-key KEY --save FILE; then munkey-server restored "
                "--signed FILE"
            )
