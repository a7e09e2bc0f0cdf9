"""`munkey-server card`: the federation card, what all members must agree on."""

from __future__ import annotations

from typing import Annotated

import typer

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities.card_words import NO_CARD, card_document, card_rows, history_lines
from fedmunkey.common.identities.signed_card import CardChain
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption, takes_options
from fedmunkey.server.commands.card_options import CardOptions
from fedmunkey.server.commands.members import DEFAULT_FOLDER, DatabaseOption, FolderOption
from fedmunkey.server.members.card_making import enter_version
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder, ledger_that_is_there


@takes_options(CardOptions)
def make(
    options: CardOptions,
    reason: Annotated[str, typer.Option(help="Why, from the second version on. Members read it.")] = "",
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the federation card, or its next version: sign it with the authority's key, and enter it in the log.

    What is not given is as in the version before; what has no default must be given the first time. The encoder's
    weights are read for their digest: name the file, or take what a site has proposed (munkey-client card propose).
    Runs take these settings from the card. Members that join get it at once; those that joined before take the first
    version over by themselves, and every later one by a command of their own, munkey-client card accept.

    Example: munkey-server card make --class benign --class malignant --image-shape 1x28x28 --encoder squeezenet1_0
    --weights squeezenet1_0.pth --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    folder.read_authority()
    before = folder.read_cards().current
    draft = options.draft(None if before is None else before.card)
    enter_version(folder, draft, reason, ledger_that_is_there(database, folder), utc_now())
    chain = folder.read_cards()
    _show(chain, "a run that contradicts the card is refused; members: munkey-client card show", as_json=as_json)


def show(
    version: Annotated[int | None, typer.Option(min=1, help="Which version; the last by default.")] = None,
    coordinator_dir: FolderOption = DEFAULT_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Show the federation card, and what each version changed, when and why.

    Example: munkey-server card show --coordinator-dir coordinator
    """
    folder = CoordinatorFolder(coordinator_dir)
    folder.read_identity()
    chain = folder.read_cards().until(version)
    if chain.current is None and not as_json:
        typer.echo(f"{NO_CARD}; make one: munkey-server card make --coordinator-dir {coordinator_dir} ...")
        return
    _show(chain, as_json=as_json)


def _show(chain: CardChain, *lines: str, as_json: bool) -> None:
    if as_json or chain.current is None:
        command_line.print_json(card_document(chain))
        return
    table = command_line.filled_table(("field", "agreed"), (), card_rows(chain.current))
    command_line.show(None, False, table, *history_lines(chain), *lines)
