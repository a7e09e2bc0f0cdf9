"""`munkey-client up`: all processes of a site, from one file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.client.supernode.doctor import diagnose
from fedmunkey.client.supernode.site_file import APPS_READY, SUPERNODE_READY, SiteFile
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.keep_running import keep_running
from fedmunkey.common.programs.supervision import Child, own_program


class Part(StrEnum):
    """What runs under one account where a site has two."""

    SITE = "site"
    SUPERNODE = "supernode"


@faults_explained()
def up(
    file: Annotated[Path, typer.Argument(help="The site's settings, in TOML.", show_default=False)],
    check: Annotated[
        bool,
        typer.Option("--check", help="Only look for what keeps it from starting, as munkey-client doctor does."),
    ] = False,
    only: Annotated[
        Part | None,
        typer.Option(help="What this account runs, where Flower's SuperNode has one of its own.", show_default=False),
    ] = None,
) -> None:
    """Run everything that a site runs, until SIGINT or SIGTERM: the deletion agent, Flower's SuperNode and its apps.

    What dies is started again. The coordinator may be out of reach: all wait for it.

    Example: munkey-client up site.toml
    """
    settings = SiteFile.read(file)
    if only is Part.SUPERNODE:
        # It may not look at what the doctor looks at.
        identity = Identity.read(settings.supernode.identity)
        check_kept_apart(settings)
        who = f"SuperNode of {identity.name}"
        if check:
            typer.echo(f"{file} can be used by the account of the {who}")
            return
    elif check:
        raise typer.Exit(diagnose(file, only_stopping=True, as_json=False))
    else:
        Identity.read(settings.identity)
        with SiteFolder(settings.site_dir).open_to_hear() as store:
            who = f"site {store.description.site}"
    own = settings.supernode if only is Part.SUPERNODE else settings
    keep_running(children(settings, file, only), own, f"{who} is up")


def check_kept_apart(settings: SiteFile) -> None:
    """Check that this account, which runs what is on a network, reads neither the site's keys nor its key store.

    Raises `InvalidSetting` if it does, or if the SuperNode has no folder of its own.
    """
    if settings.supernode_dir is None:
        raise InvalidSetting("--only supernode needs supernode-dir in the file: the folder of the SuperNode's account")
    folder = SiteFolder(settings.site_dir)
    for path in (folder.path, folder.key_store, folder.signing_key, *folder.path.glob("keystore.*")):
        if os.access(path, os.R_OK):
            raise InvalidSetting(
                f"this account can read {path}, which Flower's SuperNode should not; start it under an account of its "
                f"own, and run chmod 700 {folder.path} as the site's"
            )


def children(settings: SiteFile, file: Path, only: Part | None = None) -> list[Child]:
    """Return the site's processes in the order in which they start: it can forget before it can learn."""
    agent = ["agent", "--site-dir", str(settings.site_dir), "--service", settings.deletion_service]
    agent += ["--log-format", settings.log_format.value]
    if settings.metrics:
        agent += ["--metrics", settings.metrics]
    programs = "fedmunkey.client.supernode"
    path = str(file.absolute())
    site = [
        Child("agent", own_program("fedmunkey.client.cli", *agent), "deletion agent of "),
        Child(
            "apps", own_program(f"{programs}.apps_program", path), APPS_READY, flower_environment(settings.flower_home)
        ),
    ]
    home = settings.supernode.flower_home
    supernode = Child(
        "supernode", own_program(f"{programs}.supernode_program", path), SUPERNODE_READY, flower_environment(home)
    )
    return {None: [*site, supernode], Part.SITE: site, Part.SUPERNODE: [supernode]}[only]
