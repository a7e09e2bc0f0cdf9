"""What a site that was the first to take records in proposes for the federation card."""

from __future__ import annotations

from fedmunkey.client.importing.conventions import read_conventions
from fedmunkey.client.importing.site_enrolment import check_encoder
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.model.federation_card import NUM_CLASSES, agreed_settings
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.settings.settings import FEWEST_CLASSES, Settings
from fedmunkey.common.settings.settings_text import ConfigValue


def propose_card(folder: SiteFolder, store: KeyStore, given: dict[str, ConfigValue]) -> CardDraft:
    """Return classes, encoder and settings of a site's records; nothing in it is of any one of them.

    `given` are settings that a person gave, as when the records came. Raises `InvalidInput` if the site's classes have
    no names, and `KeyStoreError` if the encoder is not the one that made the store's keys.
    """
    conventions, held = read_conventions(folder), store.description
    if conventions is None:
        raise InvalidInput(
            f"{held.site} has records of classes without names; name them at the coordinator: munkey-server card make "
            "--class NAME ..."
        )
    settings = Settings.parse(
        {
            "image-shape": str(conventions.image_shape),
            NUM_CLASSES: max(len(conventions.classes), FEWEST_CLASSES),
            "exemplar-size": held.exemplar_size,
            "guarantee": held.guarantee.value,
            "epsilon": held.epsilon,
            "delta": held.delta,
            **conventions.settings,
            **given,
            "image-path": held.image_path.value,
        }
    )
    encoder = choose_encoder(settings)
    check_encoder(held, encoder, "give the --encoder and --weights with which its records came")
    facts = encoder.facts
    return CardDraft(conventions.classes, facts, agreed_settings(settings.replace(encoder_size=facts.size)))
