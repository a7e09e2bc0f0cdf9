"""`munkey-client console`: requests to forget in a browser on this machine, for an officer or a site."""

from __future__ import annotations

import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmunkey.client.commands.options import DEFAULT_SERVICE, IdentityOption, ServiceOption, ValidDaysOption
from fedmunkey.client.deletions.requester import DEFAULT_DAYS
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import OFFICER, OFFICER_NAMES
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities import Identity
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.addresses import split_address

# A web framework takes half a second to import, which no other command should wait for.
if TYPE_CHECKING:
    from fedmunkey.client.console.office import Office
    from fedmunkey.common.console.face import Face

DEFAULT_LISTEN = "127.0.0.1:9460"


@faults_explained()
def console(
    site_dir: Annotated[Path | None, typer.Option(help="Ask as a site, whose folder this is.")] = None,
    asking: Annotated[str | None, typer.Option("--as", help=f"Ask as the {OFFICER}, from any machine.")] = None,
    key: Annotated[
        Path | None, typer.Option("--signing-key", "--key", help="What signs the officer's requests, with --as.")
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(help="The federation secret, which makes references of ids; with --as.")
    ] = None,
    identity: IdentityOption = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of trusted keys, by which certificates and the log are checked.")
    ] = None,
    service: ServiceOption = DEFAULT_SERVICE,
    valid_days: ValidDaysOption = DEFAULT_DAYS,
    listen: Annotated[str, typer.Option(help="An address of this machine; port 0 takes one that is free.")] = (
        DEFAULT_LISTEN
    ),
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the link in this machine's browser.")
    ] = True,
) -> None:
    """Show requests to forget in this machine's browser, from inbox to certificate, until SIGINT or SIGTERM.

    An officer gives --as officer, --signing-key, --secret and --identity; a site --site-dir, or its site.toml.
    The link that is printed opens one session; Enter prints another. Ids that are typed become references here, keys
    stay here, and whatever the console does, a command does as well.

    Example: munkey-client console --as officer --signing-key officer.pem --secret federation.secret --keys keys.json
    """
    from fedmunkey.client.console.application import make_console
    from fedmunkey.common.console.serving import Serving, serve, server_for
    from fedmunkey.common.console.serving import listen as listen_at

    split_address(service)
    office, shown = _find_office(site_dir, asking, key, secret, identity, keys, valid_days)
    listening, address = listen_at(listen)
    with listening, DeletionChannel(service, identity=shown) as channel:
        # Whoever may not read is told so here, and not on every page.
        channel.overview(office.asker.name)
        face = make_console(office, channel, on_closed=lambda: _say(face.entrance.address(address))).named(address)

        def stop() -> None:
            face.lives.close()
            channel.close()

        def begin() -> None:
            link = face.entrance.address(address)
            typer.echo(f"console of {office.asker.name} at {service}")
            _say(link)
            if sys.stdin.isatty():
                threading.Thread(target=_give_links, args=(face, address), daemon=True).start()
            if browser:
                webbrowser.open(link)

        serve([Serving(server_for(face.app, address), [listening])], begin, stop)


def _find_office(
    site_dir: Path | None,
    asking: str | None,
    key: Path | None,
    secret: Path | None,
    identity: Path | None,
    keys: Path | None,
    days: float,
) -> tuple[Office, Identity | None]:
    """Return whose console it is, and the identity to show."""
    from fedmunkey.client.console.office import Office

    if site_dir is not None:
        if any(given is not None for given in (asking, key, secret, identity, keys)):
            raise InvalidSetting(
                f"{site_dir} holds all that a site needs; leave --as, --signing-key, --secret, --identity, --keys out"
            )
        folder = SiteFolder(site_dir)
        return Office.of_site(folder, days), folder.find_identity()
    if asking not in OFFICER_NAMES:
        raise InvalidSetting(f"say whose console it is: a site's with --site-dir, or --as {OFFICER}")
    if key is None or secret is None:
        raise InvalidSetting(f"--as {OFFICER} signs requests and makes references: name --signing-key and --secret")
    return Office.of_officer(key, secret, keys, days), None if identity is None else Identity.read(identity)


def _give_links(face: Face, address: str) -> None:
    """Print a link for each line that is entered."""
    for _ in sys.stdin:
        _say(face.entrance.address(address))


def _say(link: str) -> None:
    from fedmunkey.common.console.serving import LINK_LINE

    typer.echo(f"{LINK_LINE}{link}")
