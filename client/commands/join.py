"""`munkey-client join`: become a member of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import JsonOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.membership.joining import Joined
from fedmunkey.client.membership.joining import join as join_federation
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.card_words import NO_CARD
from fedmunkey.common.identities.invitation import Invitation
from fedmunkey.common.programs import command_line


@faults_explained()
def join(
    invitation: Annotated[Path, typer.Argument(help="The invitation, from the coordinator.", show_default=False)],
    site_dir: Annotated[Path | None, typer.Option(help="Join as a site, whose folder this is.")] = None,
    identity: Annotated[
        Path | None, typer.Option(help="Join as an officer; where to keep the identity.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Join a federation with an invitation, and get the identity that the deletion service asks for.

    The private key is made here and stays here. The service must be the one whose authority the invitation names.
    A site also makes the key that signs requests and receipts, if it has none, and trusts the coordinator's log.
    Whose requests a site carries out is for the site to say: munkey-client trust add.
    The federation card, what all members must agree on, comes with it. If it is interrupted, run it again.

    Example: munkey-client join hospital-1.json --site-dir hospital-1
    """
    read = Invitation.read(invitation)
    if (site_dir is None) == (identity is None):
        raise InvalidIdentity("say where the identity is to lie: --site-dir for a site, --identity for an officer")
    if (site_dir is not None) != (read.role is MemberRole.SITE):
        option = "--site-dir" if read.role is MemberRole.SITE else "--identity"
        raise InvalidIdentity(f"{invitation} invites as {read.role}; join with {option}")
    site = None if site_dir is None else SiteFolder(site_dir)
    if site is not None:
        _check_name(site, read.name)
    joined = join_federation(read, site.identity if site is not None else identity or Path(), site)
    if as_json:
        command_line.print_json(_document(joined, read, site))
        return
    _show(joined, read, site)


def _check_name(site: SiteFolder, name: str) -> None:
    """Check that the records in a site's folder are those of the site that is invited."""
    if not site.key_store.exists():
        return
    with site.open() as store:
        held = store.description.site
    if held != name:
        raise InvalidIdentity(
            f"{site.path} belongs to site {held!r}, the invitation is for {name!r}; name its own folder"
        )


def _document(joined: Joined, invitation: Invitation, site: SiteFolder | None) -> dict[str, object]:
    return {
        "federation": invitation.federation,
        "name": joined.identity.name,
        "role": joined.identity.role.value,
        "identity": str(joined.identity.folder),
        "not_after": joined.identity.not_after.isoformat(),
        "log_key": joined.log_key.raw.hex(),
        "signing_key_trusted": joined.signing_key_trusted,
        "trusted_officers": None if site is None else joined.officers,
        "card": None if joined.cards.current is None else joined.cards.current.digest,
    }


def _show(joined: Joined, invitation: Invitation, site: SiteFolder | None) -> None:
    who = joined.identity
    typer.echo(
        f"joined {invitation.federation} as {who.role} {who.name}: {who.folder}, good until {who.not_after:%Y-%m-%d}"
    )
    where = f"--identity {who.folder}" if site is None else f"--site-dir {site.path}"
    if joined.cards.current is None:
        typer.echo(f"{NO_CARD} yet; when the coordinator has made one: munkey-client card accept {where} ...")
    else:
        typer.echo(f"federation card {joined.cards.current.words}: munkey-client card show {where}")
    if site is None:
        typer.echo(
            "to check certificates, trust the log's key: munkey-client trust add coordinator "
            f"{joined.log_key.raw.hex()} --role log --in keys.json"
        )
        return
    typer.echo(f"{site.trust} trusts this site's own key and the coordinator's log")
    if not joined.signing_key_trusted:
        public = site.signing_key.with_suffix(".pub")
        typer.echo(f"the coordinator keeps no trusted keys, so it does not check this site's ({public})")
    if not joined.officers:
        typer.echo(
            "no officer's key is trusted, so only this site's own requests are carried out; the coordinator cannot "
            f"introduce one: munkey-client trust add officer officer.pub --role officer --in {site.path}"
        )
