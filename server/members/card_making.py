"""A new version of the federation card: decided, signed, entered in the log, and kept in the coordinator's folder."""

from __future__ import annotations

from datetime import datetime

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.identities.signed_card import CardChain, SignedCard, card_time
from fedmunkey.common.model.federation_card import FederationCard, changes
from fedmunkey.common.private_files import locked_folder
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.transparency_log.leaves import leaf_of_card
from fedmunkey.server.transparency_log.log import TransparencyLog, head_signer
from fedmunkey.server.transparency_log.log_key import open_log_key


def enter_version(folder: CoordinatorFolder, draft: CardDraft, reason: str, database: str, now: datetime) -> SignedCard:
    """Sign a version of the card, enter it in the log of a ledger and keep it; what is in force is always in the log.

    Raises `InvalidInput` if the card cannot be, the authority's key cannot be used, or a version after the first has no
    reason or says the same, and `ServiceUnavailable` if the ledger cannot be used.
    """
    with Ledger(database) as ledger:
        _, key = open_log_key(folder.log_key, database, head_signer(ledger.engine))
        return _enter(folder, draft, reason, TransparencyLog(ledger.engine, key), now)


def _enter(folder: CoordinatorFolder, draft: CardDraft, reason: str, log: TransparencyLog, now: datetime) -> SignedCard:
    authority = folder.read_authority()
    with locked_folder(folder.path):
        chain = folder.read_cards()
        signed = authority.sign_card(_following(chain.current, authority.federation, draft, reason, now))
        following = CardChain((*chain.cards, signed))
        log.extend([leaf_of_card(signed.digest, signed.envelope)])
        following.write(folder.path)
    return signed


def _following(
    before: SignedCard | None, federation: str, draft: CardDraft, reason: str, now: datetime
) -> FederationCard:
    if before is not None and not reason.strip():
        raise InvalidSetting(
            f"the federation has a card, {before.words}; another version is a decision: say why with --reason"
        )
    card = FederationCard(
        federation,
        1 if before is None else before.card.version + 1,
        "" if before is None else before.digest,
        reason,
        card_time(now),
        draft.classes,
        draft.encoder,
        draft.settings,
    )
    if before is not None and not changes(before.card, card):
        raise InvalidSetting(f"the federation card, {before.words}, says this already; nothing was changed")
    return card
