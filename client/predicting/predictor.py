"""What classifies a site's new images: its encoder, shared weights and settings, and the words of its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fedmunkey.client.deletions.promised_renewal import OwedRenewal, owed_renewal
from fedmunkey.client.importing.agreement import check_encoder_agreed, check_holdings, own_settings, read_card
from fedmunkey.client.importing.conventions import Conventions, read_conventions
from fedmunkey.client.importing.pictures import Choices
from fedmunkey.client.importing.site_enrolment import check_encoder
from fedmunkey.client.key_store import KeyStore, StoreDescription
from fedmunkey.client.learning.answering_tokens import AnsweringWeights
from fedmunkey.client.site import SiteFolder, model_shape
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.release import Release, is_release, read_release
from fedmunkey.common.errors import InvalidInput, InvalidSetting, InvalidWeights, KeyStoreError
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.federation_card import NUM_CLASSES, FederationCard
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.model_choice import choose_device, choose_encoder, initial_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import FEWEST_CLASSES, ImagePath, Settings
from fedmunkey.common.settings.settings_text import ConfigValue

_NO_WEIGHTS = "none yet: answers are of the site's own records alone"
_FIRST_WEIGHTS = "first weights, with which the nearest entries vote"


@dataclass(frozen=True)
class Predictor:
    """A model and all that it needs, but the key store.

    The recipe is that by which it was trained, `weights` says in words which weights it has. A class without a name is
    called by its number; `choices` are what the site takes of files with more than one picture, `answering` says which
    tokens go with the model, `owed` by when weights that hold what was erased must be renewed.
    """

    model: Munkey | Release
    encoder: Encoder
    recipe: Recipe
    classes: tuple[str, ...]
    choices: Choices
    weights: str
    answering: AnsweringWeights | None = None
    owed: OwedRenewal | None = None

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys of (n, C, H, W) uint8 images, and what the model's image path reads of them."""
        encoding = self.encoder.encode(images)
        patches = self.recipe.image_path is ImagePath.PATCHES
        return encoding.keys, images if patches else encoding.features

    def class_name(self, label: int) -> str:
        """Return what a class is called."""
        return self.classes[label] if label < len(self.classes) else str(label)


def choose_predictor(
    folder: SiteFolder,
    store: KeyStore,
    given: dict[str, ConfigValue],
    checkpoint: Path | None,
    make_encoder: Callable[[Settings], Encoder] = choose_encoder,
) -> Predictor:
    """Choose encoder, weights and settings as the site has them, and as a person asks on top.

    `given` are settings that a person gave. Without a checkpoint the weights are those that the site has last taken
    over; before the first, first weights. Raises `InvalidInput` if settings or weights cannot be used,
    `CardMismatch` if encoder, classes or what the site holds are not as the members have agreed, and `KeyStoreError` if
    they do not fit what the site holds, or it holds nothing to vote.
    """
    conventions = read_conventions(folder)
    held, card = store.description, read_card(folder)
    if card is not None:
        check_holdings(card, folder, store)
    classes = conventions.classes if card is None and conventions else card.classes if card else ()
    settings = _settings(store, given, conventions, card, len(classes))
    encoder = make_encoder(settings)
    if card is not None:
        card.check({"image-shape": settings.image_shape}, "what was given", "leave it out")
        check_encoder_agreed(card, encoder, "what was given")
    check_encoder(held, encoder, "give the same --encoder, --weights and image shape as when its records came")
    path = checkpoint or (folder.shared_weights if folder.shared_weights.exists() else None)
    solved = held.guarantee is Guarantee.EXACT if path is None else is_release(path)
    model: Munkey | Release
    answering: AnsweringWeights | None = None
    if solved:
        model, settings = _solved(store, settings, path, len(classes))
        words = _weights_words(path, checkpoint, held.site, settings) if path else _NO_WEIGHTS
    elif path is None:
        if not store.records.count_labels():
            raise KeyStoreError(f"{held.site} holds no training record that could vote; import some, or name a --model")
        # Those without any neighbour list are searched here, so lists may be as long as is asked for.
        neighbours = Recipe.of(settings).neighbours
        shape = model_shape(settings, replace(held, list_length=max(held.list_length, neighbours)))
        model, words = initial_model(shape, settings.seed), _FIRST_WEIGHTS
    elif held.guarantee is Guarantee.EXACT and checkpoint is None:
        raise InvalidWeights(f"{path} is of an earlier version, which trained exact weights; wait for the next round")
    else:
        found = read_checkpoint(path, encoder=settings.encoder)
        _check_shape(path, found.shape, store, len(classes))
        settings = _trained_with(settings, found)
        model, answering = found.model(), AnsweringWeights.of(found)
        words = _weights_words(path, checkpoint, held.site, settings)
    if isinstance(model, Munkey):
        model = model.to(choose_device(settings.device))
    if card is not None and path is not None:
        known = model.classes if isinstance(model, Release) else model.shape.num_classes
        card.check({NUM_CLASSES: known}, str(path), "take weights of a run under this card")
    choices = conventions.choices if conventions else Choices()
    owed = owed_renewal(model.about, store) if isinstance(model, Release) else None
    return Predictor(model, encoder, Recipe.of(settings), classes, choices, words, answering, owed)


def _settings(
    store: KeyStore,
    given: dict[str, ConfigValue],
    conventions: Conventions | None,
    card: FederationCard | None,
    classes: int,
) -> Settings:
    """Return settings as the card has them, or the site's imports, and on top as a person asks."""
    held, own = store.description, own_settings(conventions, card)
    if card is not None:
        return Settings.parse({**card.over({**own, **given}), "image-path": held.image_path.value})
    return Settings.parse(
        {
            "image-shape": str(conventions.image_shape) if conventions else _image_shape(held, given),
            NUM_CLASSES: max(classes, 1 + (store.records.largest_label() or 0), FEWEST_CLASSES),
            "exemplar-size": held.exemplar_size,
            "guarantee": held.guarantee.value,
            **own,
            **given,
            "image-path": held.image_path.value,
        }
    )


def _solved(store: KeyStore, settings: Settings, path: Path | None, classes: int) -> tuple[Release, Settings]:
    """Return released weights, or none yet, and settings that agree with them."""
    if path is None:
        if not store.records.count_labels():
            raise KeyStoreError(f"{store.description.site} holds no training record; import some, or name a --model")
        read = FeatureMap.of(Recipe.of(settings), model_shape(settings, store.description))
        return Release.nothing(read, settings.num_classes, settings.encoder), settings
    release = read_release(path, encoder=settings.encoder)
    if release.classes < (least := max(classes, 1 + (store.records.largest_label() or 0))):
        raise InvalidWeights(
            f"{path} knows {release.classes} classes, the site has {least}; take the weights of its federation"
        )
    solved = settings.replace(
        guarantee=Guarantee.EXACT.value,
        num_classes=release.classes,
        random_features=release.feature_map.random,
    )
    expected = FeatureMap.of(Recipe.of(solved), model_shape(solved, store.description))
    if release.feature_map != expected:
        raise InvalidWeights(
            f"{path} reads {release.feature_map.features} features of a record, this site has {expected.features}; "
            "take the weights of its federation"
        )
    return release, solved


def _weights_words(path: Path, checkpoint: Path | None, site: str, settings: Settings) -> str:
    return f"{path} ({settings.guarantee})" if checkpoint else f"those that {site} has last taken over"


def _image_shape(held: StoreDescription, given: dict[str, ConfigValue]) -> str:
    if held.image_path is ImagePath.PATCHES:
        return "x".join(map(str, held.input_shape))
    if "image-shape" not in given:
        raise InvalidInput("the site has not imported any file; say what its images are with --set image-shape=CxHxW")
    return str(given["image-shape"])


def _check_shape(path: Path, shape: ModelShape, store: KeyStore, classes: int) -> None:
    held = store.description
    for name, theirs, ours in (
        ("image_path", shape.image_path.value, held.image_path.value),
        ("input_shape", shape.input_shape, held.input_shape),
        ("exemplar_size", shape.exemplar_size, held.exemplar_size),
    ):
        if theirs != ours:
            raise InvalidWeights(
                f"{path} holds weights of another model: {name} is {theirs}, the key store has {ours}; "
                "take the weights of this site's federation"
            )
    least = max(classes, 1 + (store.records.largest_label() or 0))
    if shape.num_classes < least:
        raise InvalidWeights(
            f"{path} knows {shape.num_classes} classes, the site has {least}; take the weights of its federation"
        )


def _trained_with(settings: Settings, found: Checkpoint) -> Settings:
    """Return settings that agree with a checkpoint; weights of an unknown guarantee may have any record in them."""
    shape = found.shape
    given = str(found.about.get("guarantee", ""))
    try:
        return settings.replace(
            num_classes=shape.num_classes,
            depth=shape.depth,
            width=shape.width,
            heads=shape.heads,
            exemplar_size=shape.exemplar_size,
            guarantee=given if given in set(Guarantee) else Guarantee.EMPIRICAL.value,
        )
    except InvalidSetting as error:
        raise InvalidWeights(f"the weights do not go with the settings: {error}") from None
