"""`munkey-client rotate`: a fresh key and certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, JsonOption, ServiceOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.membership.rotation import rotate as rotate_identity
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.programs import command_line


@faults_explained()
def rotate(
    site_dir: Annotated[Path | None, typer.Option(help="Of the site whose folder this is.")] = None,
    identity: IdentityOption = None,
    service: ServiceOption = DEFAULT_SERVICE,
    as_json: JsonOption = False,
) -> None:
    """Replace a member's key and certificate, before it expires or if somebody may have read the key.

    The old certificate ends as soon as the new one is in place. An agent that runs meanwhile goes on with the new one.
    If it is interrupted, the identity still works; run it again.

    Example: munkey-client rotate --site-dir hospital-1 --service coordinator.example.org:9440
    """
    if (site_dir is None) == (identity is None):
        raise InvalidIdentity("say whose identity: a site's with --site-dir, or its folder with --identity")
    folder = SiteFolder(site_dir).identity if site_dir is not None else identity or Path()
    fresh = rotate_identity(folder, service)
    command_line.show(
        {
            "name": fresh.name,
            "role": fresh.role.value,
            "identity": str(folder),
            "not_after": fresh.not_after.isoformat(),
        },
        as_json,
        f"{fresh.role} {fresh.name} has a fresh key and certificate, good until {fresh.not_after:%Y-%m-%d}",
    )
