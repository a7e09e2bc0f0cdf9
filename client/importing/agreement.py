"""Whether a site agrees with the federation card: what it is about to take in, what it holds, and what a run asks."""

from __future__ import annotations

from collections.abc import Mapping

from fedmunkey.client.importing.conventions import Conventions, read_conventions
from fedmunkey.client.key_store import KeyStore, StoreDescription
from fedmunkey.client.membership.site_card import MemberCards, Taken, check_logged, check_under
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import CardMismatch
from fedmunkey.common.model.encoder_facts import fingerprint_fields
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.federation_card import (
    CLASSES,
    FEATURES,
    FederationCard,
    encoder_fields,
    features_shown,
)
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ONNX, Settings
from fedmunkey.common.settings.settings_text import ConfigValue

_LEAVE_OUT = "leave out what differs, or have the coordinator make another version of the card"
_ANEW = "enrol the records into a new store as the card says, or have the coordinator make another version of the card"


def read_card(folder: SiteFolder) -> FederationCard | None:
    """Return the card that a site has taken over, None if it has none; raises `InvalidProof` if it was changed."""
    current = MemberCards.of(folder).read().current
    return None if current is None else current.card


def own_settings(conventions: Conventions | None, card: FederationCard | None) -> dict[str, ConfigValue]:
    """Return the settings that a site has kept of its first import, but those that its card has."""
    kept = dict(conventions.settings) if conventions else {}
    encoder, _, file = str(kept.get("encoder", "")).partition(":")
    if encoder == ONNX and file:
        # The card says which encoder, and not where its file lies here.
        kept = {**kept, "encoder-weights": file}
    return {name: value for name, value in kept.items() if card is None or name not in card.settings}


def check_classes_asked(card: FederationCard, classes: tuple[str, ...], whose: str) -> None:
    """Check names of classes, in order, against those of the card; raises `CardMismatch`."""
    card.check({CLASSES: ", ".join(classes)}, whose, _LEAVE_OUT)


def check_settings_agreed(card: FederationCard, settings: Settings, site: str) -> None:
    """Check settings that records would come in with; raises `CardMismatch`."""
    card.check_settings(settings, f"what {site} would take in", _LEAVE_OUT)


def check_encoder_agreed(card: FederationCard, encoder: Encoder, whose: str) -> None:
    """Check an encoder with its weights and all that it does to an image; raises `CardMismatch`."""
    card.check(encoder_fields(encoder.facts), whose, "give the --encoder and --weights of the card")


def check_holdings(card: FederationCard, folder: SiteFolder, store: KeyStore) -> None:
    """Check that what a site holds, and has promised, is of the card; raises `CardMismatch`, with the site's name."""
    held = store.description
    found = {**_of_store(held, card), **conventions_fields(card, read_conventions(folder))}
    largest = store.records.largest_label()
    if largest is not None and largest >= len(card.classes):
        found.setdefault(CLASSES, f"{largest + 1} of them")
    card.check(found, held.site, _ANEW)


def check_conventions(card: FederationCard, conventions: Conventions | None) -> None:
    """Check what a site's first import has settled; raises `CardMismatch`."""
    card.check(conventions_fields(card, conventions), "what this site has imported", _ANEW)


def check_round(folder: SiteFolder, store: KeyStore, settings: Settings) -> str:
    """Check that a run is under the card that a site has taken over, asks what the card says, and fits what is held.

    A site without a card asks the coordinator, and takes what it has over as its first one; where the run is under none
    either there is nothing to agree with. Returns the card's digest, empty without one. Raises `CardMismatch`, and as
    `MemberCards.hear`, before anything is computed.
    """
    cards = MemberCards.of(folder)
    current = cards.read().current
    if current is None:
        if not settings.federation_card:
            return ""
        first = cards.hear(settings.deletion_service)
        current = first.current
        if current is None:
            raise CardMismatch("the run is under a federation card, and the coordinator shows none; ask why")
        check_logged(folder, current, settings.deletion_service)
        cards.keep(first, Taken.FIRST, utc_now())
    if current.digest != settings.federation_card:
        check_under(current, cards.hear(settings.deletion_service), settings.federation_card)
    current.card.check_settings(settings, "what the coordinator asks", "ask the coordinator why")
    check_holdings(current.card, folder, store)
    return current.digest


def conventions_fields(card: FederationCard, conventions: Conventions | None) -> dict[str, object]:
    """Return what is to agree of a site's imports; it may have fewer classes, which then are the card's first ones."""
    if conventions is None:
        return {}
    found: dict[str, object] = {"image-shape": str(conventions.image_shape)}
    if conventions.classes != card.classes[: len(conventions.classes)]:
        found[CLASSES] = ", ".join(conventions.classes)
    return found


def _of_store(held: StoreDescription, card: FederationCard) -> dict[str, object]:
    promised: Mapping[str, float] = {}
    if held.guarantee is Guarantee.CERTIFIED and card.settings["guarantee"] == held.guarantee:
        # A budget that is kept below what was promised breaks no promise.
        promise = {"epsilon": held.epsilon, "delta": held.delta}
        promised = {name: most for name, most in promise.items() if float(card.settings[name]) > most}
    shape = "x".join(map(str, held.input_shape))
    return {
        **fingerprint_fields(held.encoder),
        FEATURES: features_shown(held.image_path, held.input_shape, shape),
        "image-path": held.image_path.value,
        "exemplar-size": held.exemplar_size,
        "guarantee": held.guarantee.value,
        **promised,
    }


def classes_shown(card: FederationCard) -> str:
    """Return which number means which class, for people."""
    return ", ".join(f"{number} {name}" for number, name in enumerate(card.classes))
