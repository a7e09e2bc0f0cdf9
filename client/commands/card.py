"""`munkey-client card`: the federation card at a member, and what a first site proposes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.options import EncoderOption, JsonOption, ServiceOption, SettingOption, WeightsOption
from fedmunkey.client.key_store.disk_errors import faults_explained
from fedmunkey.client.membership.site_card import MemberCards, Taken, check_logged
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities.card_words import NO_CARD, card_document, card_rows, history_lines
from fedmunkey.common.identities.signed_card import CardChain, SignedCard
from fedmunkey.common.programs import command_line
from fedmunkey.common.settings.settings_text import given_settings

_SiteOption = Annotated[Path | None, typer.Option("--site-dir", help="The site's folder.")]
_OfficerOption = Annotated[Path | None, typer.Option("--identity", help="The folder of an officer's identity.")]


@faults_explained()
def show(site_dir: _SiteOption = None, identity: _OfficerOption = None, as_json: JsonOption = False) -> None:
    """Show the federation card that this member has taken over, and what each version changed, when and why.

    Example: munkey-client card show --site-dir hospital-1
    """
    chain = _cards(site_dir, identity).read()
    if as_json:
        command_line.print_json(card_document(chain))
    elif chain.current is None:
        typer.echo(f"{NO_CARD}; munkey-client card accept asks the coordinator for one")
    else:
        _show(chain)


@faults_explained()
def accept(
    service: ServiceOption,
    site_dir: _SiteOption = None,
    identity: _OfficerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over the federation card that the coordinator has now.

    It must be signed by the authority that this member has joined, follow the version that is in force here, and stand
    in the coordinator's log. A site takes over only what its records agree with. Until then rounds under a later
    version leave the site out.

    Example: munkey-client card accept --site-dir hospital-1 --service coordinator.example.org:9440
    """
    cards = _cards(site_dir, identity)
    held, heard = cards.read(), cards.hear(service)
    if heard.current is None:
        raise InvalidIdentity(f"{NO_CARD} at the coordinator yet; it makes one with munkey-server card make")
    if site_dir is not None:
        _check_site(SiteFolder(site_dir), heard.current, service)
    if heard != held:
        cards.keep(heard, Taken.ACCEPTED, utc_now())
    if as_json:
        command_line.print_json(card_document(heard))
        return
    _show(heard)
    typer.echo(f"in force here: {heard.current.words}{', as before' if heard == held else ''}")


@faults_explained()
def propose(
    output: Annotated[Path, typer.Argument(help="Where to write the proposal.")],
    site_dir: Annotated[Path, typer.Option("--site-dir", help="The site's folder.")],
    encoder: EncoderOption = None,
    weights: WeightsOption = None,
    setting: SettingOption = None,
) -> None:
    """Write what this site's records are, for the coordinator to make the federation card of.

    The coordinator has no data and perhaps no encoder. The file holds names of classes, the images' shape, a digest of
    the encoder's weights and settings, and nothing of any record: munkey-server card make --proposal FILE.

    Example: munkey-client card propose proposal.json --site-dir hospital-1
    """
    # What reads an encoder imports torch, which takes seconds.
    from fedmunkey.client.importing.proposing import propose_card

    folder = SiteFolder(site_dir)
    with folder.open() as store:
        draft = propose_card(folder, store, given_settings(setting, encoder=encoder, encoder_weights=weights))
    draft.write(output)
    typer.echo(f"{output}: {', '.join(draft.classes)}; hand it to the coordinator: card make --proposal {output.name}")


def _cards(site_dir: Path | None, identity: Path | None) -> MemberCards:
    if (site_dir is None) == (identity is None):
        raise InvalidIdentity("say whose card: --site-dir for a site, --identity for an officer")
    return MemberCards(identity, identity) if identity is not None else MemberCards.of(SiteFolder(site_dir or Path()))


def _check_site(folder: SiteFolder, signed: SignedCard, service: str) -> None:
    """Check that what a site holds agrees with a version, and that the coordinator's log has it."""
    check_logged(folder, signed, service)
    if folder.key_store.exists():
        # What reads records imports torch, which takes seconds.
        from fedmunkey.client.importing.agreement import check_holdings

        with folder.open() as store:
            check_holdings(signed.card, folder, store)


def _show(chain: CardChain) -> None:
    if chain.current is not None:
        table = command_line.filled_table(("field", "agreed"), (), card_rows(chain.current))
        command_line.show(None, False, table, *history_lines(chain))
