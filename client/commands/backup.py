"""`munkey-client backup`: a copy of a site's key store that later deletions reach."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import JsonOption, SiteDirOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.programs import command_line


@faults_explained()
def backup(
    site_dir: SiteDirOption,
    output: Annotated[Path, typer.Option(help="The file to write; it must not be there.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a site's key store while it is in use.

    The copy holds no key and is sealed as a whole: it can be read only beside the site's present key file, in which its
    own key is and deletions destroy records' keys. Do not copy the key file; if its disk may fail, mirror that disk.

    Example: munkey-client backup --site-dir hospital-1 --output monday.backup
    """
    with SiteFolder(site_dir).open() as store:
        size = store.back_up(output, datetime.now(UTC))
        last = store.orders.last
    if as_json:
        command_line.print_json({"file": str(output), "bytes": size, "last_order": last})
    else:
        typer.echo(f"{output}: {size:,} bytes, after order {last}; it is read with {site_dir}/keystore.keys")
