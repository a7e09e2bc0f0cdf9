"""`munkey-client up`: all processes of a site, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.client.supernode.doctor import diagnose
from fedmunkey.client.supernode.site_file import SUPERNODE_READY, SiteFile
from fedmunkey.common.identities import Identity
from fedmunkey.common.programs.flower import flower_environment
from fedmunkey.common.programs.keep_running import keep_running
from fedmunkey.common.programs.supervision import Child, own_program


@faults_explained()
def up(
    file: Annotated[Path, typer.Argument(help="The site's settings, in TOML.", show_default=False)],
    check: Annotated[
        bool,
        typer.Option("--check", help="Only look for what keeps it from starting, as munkey-client doctor does."),
    ] = False,
) -> None:
    """Run everything that a site runs, until SIGINT or SIGTERM: Flower's SuperNode and the deletion agent.

    What dies is started again. The coordinator may be out of reach: both wait for it.

    Example: munkey-client up site.toml
    """
    settings = SiteFile.read(file)
    if check:
        raise typer.Exit(diagnose(file, only_stopping=True, as_json=False))
    Identity.read(settings.identity)
    with SiteFolder(settings.site_dir).open_to_hear() as store:
        site = store.description.site
    keep_running(children(settings, file), settings, f"site {site} is up")


def children(settings: SiteFile, file: Path) -> list[Child]:
    """Return the site's processes in the order in which they start: it can forget before it can learn."""
    environment = flower_environment(settings.flower_home)
    agent = ["agent", "--site-dir", str(settings.site_dir), "--service", settings.deletion_service]
    agent += ["--log-format", settings.log_format.value]
    supernode = own_program("fedmunkey.client.supernode.supernode_program", str(file.absolute()))
    return [
        Child("agent", own_program("fedmunkey.client.cli", *agent), "deletion agent of "),
        Child("supernode", supernode, SUPERNODE_READY, environment),
    ]
