"""Federation cards of a coordinator that runs in this process."""

from __future__ import annotations

from fedmunkey.common.clock import utc_now
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.identities.signed_card import SignedCard
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.federation_card import agreed_settings
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.members.card_making import enter_version
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from tests.coordinator import Coordinator


def make_card(
    coordinator: Coordinator | CoordinatorFolder,
    classes: tuple[str, ...],
    settings: Settings,
    encoder: EncoderFacts,
    reason: str = "",
) -> SignedCard:
    """Make the card, or its next version, as `munkey-server card make` does once it knows what to say."""
    draft = CardDraft(classes, encoder, agreed_settings(settings))
    folder = coordinator.folder if isinstance(coordinator, Coordinator) else coordinator
    return enter_version(folder, draft, reason, folder.ledger, utc_now())
