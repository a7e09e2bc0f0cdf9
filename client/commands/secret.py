"""`munkey-client secret`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidInput


@faults_explained()
def secret(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.", show_default=False)],
) -> None:
    """Make the secret that sites and officers share.

    A federation has one: with it, ids become references that the coordinator cannot read.
    Hand it to sites and officers only, for whoever has it can try ids out.
    An existing file is left alone.

    Example: munkey-client secret federation.secret
    """
    try:
        FederationSecret.generate().write(path)
    except FileExistsError:
        raise InvalidInput(
            f"{path} is there already; a federation keeps its secret, for no other finds the records that it named"
        ) from None
    typer.echo(f"wrote {path}: hand it to sites and officers, never to the coordinator")
