"""`munkey-client doctor`: what is wrong at a site, before it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.site import SiteFolder
from fedmunkey.client.supernode.site_file import SiteFile
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import CardMismatch, FedmunkeyError, NotInstalled
from fedmunkey.common.identities import Identity, MemberRole
from fedmunkey.common.identities.card_words import NO_CARD
from fedmunkey.common.identities.identity import read_certificate
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.doctor import Finding, examine, expiring, missing, show_findings, taken_ports
from fedmunkey.common.programs.options import JsonOption
from fedmunkey.common.programs.reaching import clock_off, unreachable
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys

_JOIN = "ask the coordinator for an invitation and run munkey-client join"


@faults_explained()
def doctor(
    file: Annotated[Path, typer.Argument(help="The site's settings, in TOML.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong at a site: its settings, identity, keys, key store, ports, coordinator and clock.

    Each finding is one line with the way out. Nothing is changed, and it may run while the site does.
    Exit code 0: nothing was found; 2: something was.

    Example: munkey-client doctor site.toml
    """
    raise typer.Exit(diagnose(file, only_stopping=False, as_json=as_json))


def diagnose(file: Path, *, only_stopping: bool, as_json: bool) -> int:
    """Show what is wrong at a site, as `show_findings`, and return its exit code."""
    try:
        settings = SiteFile.read(file)
    except FedmunkeyError as error:
        return show_findings(file, [Finding.of(error)], "", only_stopping=only_stopping, as_json=as_json)
    findings = find(settings)
    sound = f"{file} can be used: site {settings.site_dir}"
    return show_findings(file, findings, sound, only_stopping=only_stopping, as_json=as_json)


def find(settings: SiteFile) -> list[Finding]:
    """Return what is wrong at the site that some settings are of."""
    folder = SiteFolder(settings.site_dir)
    listening = [("runtime", settings.runtime, "supernode")]
    listening += [("metrics", settings.metrics, "agent")] if settings.metrics else []
    of_site = [partial(check, folder, settings) for check in (_store, _card)]
    findings = examine([partial(_identity, settings), partial(_keys, folder), *of_site])
    findings += examine([partial(taken_ports, folder.path, listening)])
    try:
        identity = Identity.read(settings.identity)
    except FedmunkeyError:
        # Without it nobody can be asked.
        return findings
    return findings + examine(
        [
            partial(unreachable, "superlink", settings.superlink, identity),
            partial(unreachable, "deletion-service", settings.deletion_service, identity),
            partial(clock_off, f"superlink = {settings.superlink}", settings.superlink, identity),
        ]
    )


def _identity(settings: SiteFile) -> Iterator[Finding]:
    identity = Identity.read(settings.identity)
    if identity.role is not MemberRole.SITE:
        yield Finding(f"{settings.identity} is the identity of {identity.role} {identity.name}, of no site", _JOIN)
    rotate = f"munkey-client rotate --site-dir {settings.site_dir} --service {settings.deletion_service}"
    yield from expiring(identity, rotate, utc_now())


def _keys(folder: SiteFolder) -> Iterator[Finding]:
    back = "put its copy back"
    yield from missing(folder.signing_key, "the key that signs receipts", f"{back}, or run munkey-client join again")
    yield from missing(folder.secret, "the federation's secret", f"{back}, or import once more with --secret")
    if not folder.trust.exists():
        # Said with the key store, which nobody may use without it.
        return
    if not TrustedKeys.read(folder.trust).of(Role.OFFICER):
        yield Finding(
            f"{folder.trust} has no officer's key, so only this site's own requests are carried out",
            f"munkey-client trust add officer officer.pub --role officer --in {folder.path}",
            stops=False,
        )


def _store(folder: SiteFolder, settings: SiteFile) -> Iterator[Finding]:
    with folder.open_to_hear() as store:
        held = store.description
    name = Identity.read(settings.identity).name
    if held.site != name:
        yield Finding(
            f"{folder.key_store} is the key store of {held.site!r}, and the identity is that of {name!r}",
            "name the site's own folder as site-dir",
        )
    if held.guarantee is Guarantee.CERTIFIED and find_spec("dp_accounting") is None:
        yield Finding.of(NotInstalled("certified", "what accounts for guarantee = certified"))


def _card(folder: SiteFolder, settings: SiteFile) -> Iterator[Finding]:
    authority = read_certificate(Identity.read(settings.identity).ca_file)
    signed = CardChain.read(folder.path, authority).current
    if signed is None:
        way_out = f"munkey-client card accept --site-dir {folder.path} --service {settings.deletion_service}"
        yield Finding(NO_CARD, f"once the coordinator has made one: {way_out}", stops=False)
        return
    # It brings torch, which nothing else here needs.
    from fedmunkey.client.importing.agreement import check_holdings

    try:
        with folder.open_to_hear() as store:
            check_holdings(signed.card, folder, store)
    except CardMismatch as error:
        # Deletions are carried out all the same.
        yield replace(Finding.of(error), stops=False)
