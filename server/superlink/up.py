"""`munkey-server up`: all processes of the coordinator, from one file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidInput, InvalidSetting
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.keep_running import keep_running
from fedmunkey.common.programs.supervision import Child, own_program
from fedmunkey.server.members.coordinator_folder import DATABASE_VARIABLE, CoordinatorFolder
from fedmunkey.server.superlink.coordinator_file import (
    DELETION_SERVICE,
    NOTICES,
    RENEWALS,
    SUPERLINK,
    SUPERLINK_READY,
    CoordinatorFile,
)
from fedmunkey.server.superlink.doctor import check_hosts, diagnose
from fedmunkey.server.superlink.notifying import NOTIFYING_READY
from fedmunkey.server.superlink.renewing import RENEWING_READY


def up(
    file: Annotated[Path, typer.Argument(help="The coordinator's settings, in TOML.", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Only look for what keeps it from starting, as munkey-server doctor does.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(help="Run this process alone, in a unit of its own: deletion-service or superlink."),
    ] = None,
) -> None:
    """Run everything that the coordinator runs, until SIGINT or SIGTERM: Flower's SuperLink and the deletion service.

    Under exact the shared weights are renewed by themselves when deletions are due to leave them.
    What dies is started again. SuperNodes of sites that were revoked or whose key has changed are refused within
    seconds.

    Example: munkey-server up coordinator.toml
    """
    settings = CoordinatorFile.read(file)
    started = chosen(children(settings, file), only)
    if check:
        raise typer.Exit(diagnose(file, only_stopping=True, as_json=False, only=only))
    check_hosts(settings, CoordinatorFolder(settings.coordinator_dir).read_identity())
    try:
        settings.check_card(settings.run_settings())
    except InvalidInput as error:
        # Deletions wait for no agreement; runs do.
        sys.stderr.write(f"warning: no run can begin: {error}\n")
    ready = (
        f"coordinator is up: sites at {settings.superlink}, deletions at {settings.deletion_service}, "
        f"joining at {settings.joining}"
    )
    keep_running(started, settings, f"{only} of the {ready}" if only else ready)


def chosen(processes: Sequence[Child], only: str | None) -> list[Child]:
    """Return the process of a name, or all if none is named; raises `InvalidSetting` if there is none of that name."""
    found = [child for child in processes if only in (None, child.name)]
    if not found:
        names = " or ".join(child.name for child in processes)
        raise InvalidSetting(f"--only {only}: there is no such process; name {names}, or leave it out for all")
    return found


def children(settings: CoordinatorFile, file: Path) -> list[Child]:
    """Return the coordinator's processes in the order in which they start."""
    environment = flower_environment(settings.flower_home)
    superlink = own_program("fedmunkey.server.superlink.superlink_program", str(file.absolute()))
    renewing = own_program("fedmunkey.server.superlink.renewing", str(file.absolute()))
    notifying = own_program("fedmunkey.server.superlink.notifying", str(file.absolute()))
    told = settings.notices.webhook or settings.notices.mail_to
    return [
        # Its address may hold a password, and a command line can be read by everybody.
        Child(
            DELETION_SERVICE,
            serve_command(settings),
            "deletion service at ",
            {**environment, DATABASE_VARIABLE: settings.ledger},
        ),
        Child(SUPERLINK, superlink, SUPERLINK_READY, environment),
        Child(RENEWALS, renewing, RENEWING_READY, environment),
        *([Child(NOTICES, notifying, NOTIFYING_READY, environment)] if told else []),
    ]


def serve_command(settings: CoordinatorFile) -> list[str]:
    """Return how the deletion service is started; its database is told by `DATABASE_VARIABLE`."""
    words = ["serve", "--coordinator-dir", str(settings.coordinator_dir)]
    words += ["--address", settings.deletion_service, "--joining-address", settings.joining]
    words += ["--due-days", str(settings.due_days), "--renew-days", str(settings.run_settings().renew_within)]
    words += ["--log-format", settings.log_format.value]
    if settings.metrics:
        words += ["--metrics", settings.metrics]
    if settings.keys is not None:
        words += ["--keys", str(settings.keys)]
    return own_program("fedmunkey.server.cli", *words)
