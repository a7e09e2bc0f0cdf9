"""`munkey-client restore`: a backup in the place of a site's key store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.key_store.on_disk.restoration import restore as restore_store
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import count_of
from fedmunkey.common.programs import command_line


@faults_explained()
def restore(
    file: Annotated[Path, typer.Argument(help="What munkey-client backup has written.")],
    site_dir: SiteDirOption,
    without_journal: Annotated[
        bool,
        typer.Option(
            "--without-journal",
            help="The journal is lost for good: count the privacy budget as spent, and claim nothing for the records.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of a site's key store.

    The site's key file, master key and journal must be in their places. What was deleted since the backup stays
    unreadable, what was spent of the privacy budget stays spent, and the store can be used once it has caught up with
    deletions.

    Example: munkey-client restore monday.backup --site-dir hospital-1
    """
    restored = restore_store(file, SiteFolder(site_dir).key_store, without_journal=without_journal)
    if as_json:
        command_line.print_json(asdict(restored))
        return
    typer.echo(
        f"{count_of(restored.records, 'record')}, {restored.unreadable} of them deleted since and unreadable; "
        f"orders after {restored.last_order} are to be carried out again: "
        f"run munkey-client catch-up --site-dir {site_dir}"
    )
