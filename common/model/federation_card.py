"""The federation card: what all members must agree on before anything is computed.

Values are compared as they are written, each by the name of its field, with every choice made that a setting leaves
open: that two members typed different things does not matter where they mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fedmunkey.common.errors import CardMismatch, InvalidSetting
from fedmunkey.common.model.encoder_facts import EncoderFacts, fingerprint_fields
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.likeness import check_class_names
from fedmunkey.common.settings.settings import FEWEST_CLASSES, ExemplarTokens, ImagePath, Settings
from fedmunkey.common.settings.settings_text import ConfigValue

CLASSES, FEATURES, NUM_CLASSES = "classes", "features", "num-classes"
_SIZE = "encoder-size"
_NAME_CHARACTERS = 100

_ALWAYS = (
    *("image-shape", NUM_CLASSES, "encoder", _SIZE, "encoder-pooling", "encoder-mirror", "image-path"),
    *("patch-size", "exemplar-size", "guarantee", "neighbours"),
)
_TRANSFORMER = ("width", "depth", "heads", "aggregation", "temperature", "image-vote", "exemplar-tokens")
_AGREED = {
    Guarantee.EXACT: (*_ALWAYS, "learns-from", "random-features", "renew-within", "fewest-changed"),
    Guarantee.CERTIFIED: (*_ALWAYS, *_TRANSFORMER, "epsilon", "delta", "clipping-norm"),
    Guarantee.EMPIRICAL: (*_ALWAYS, *_TRANSFORMER),
}
"""Settings that must agree under each guarantee; the others are the coordinator's, or a machine's own."""


def agreed_settings(settings: Settings) -> dict[str, ConfigValue]:
    """Return the settings that must agree, by their kebab-case names, with every choice made that they leave open.

    Only the encoder's size is as it was given: what 0 chooses is known when the encoder is there. Raises
    `InvalidSetting` if the patch size does not divide the image.
    """
    recipe = Recipe.of(settings)
    decided: dict[str, ConfigValue] = {
        **settings.to_config(),
        "image-path": recipe.image_path.value,
        "patch-size": recipe.patch_size,
        "depth": recipe.depth,
        "random-features": recipe.random_features,
        "neighbours": recipe.neighbours,
        "aggregation": recipe.reading.aggregation.value,
        "image-vote": recipe.reading.image_vote,
        "exemplar-tokens": (ExemplarTokens.JOINT if recipe.route.joint_tokens else ExemplarTokens.OWN).value,
    }
    # JSON has no infinity.
    return {name: "inf" if decided[name] == float("inf") else decided[name] for name in _AGREED[settings.guarantee]}


def encoder_fields(facts: EncoderFacts) -> dict[str, object]:
    """Return what must agree of an encoder that is there."""
    whole = {"encoder-weights-sha256": facts.weights} if facts.weights else {}
    return {
        **fingerprint_fields(facts.fingerprint),
        _SIZE: facts.size,
        **whole,
        "encoder-preprocessing": facts.preprocessing,
    }


@dataclass(frozen=True)
class FederationCard:
    """One version of what the members have agreed on.

    Attributes
    ----------
    federation : str
        What the coordinator calls it.
    version : int
        From 1; each version after the first has a `reason` and names the digest of the one before in `previous`.
    classes : tuple of str
        Their names in the order of their numbers.
    encoder : EncoderFacts
        The encoder of every member's keys and features.
    settings : dict
        `agreed_settings`, the encoder's size among them.
    """

    federation: str
    version: int
    previous: str
    reason: str
    made_at: datetime
    classes: tuple[str, ...]
    encoder: EncoderFacts
    settings: Mapping[str, ConfigValue]

    def __post_init__(self) -> None:
        """Check that the card can be one; raises `InvalidInput`, and `InvalidSetting` for unknown settings."""
        check_classes(self.classes)
        for name, value in encoder_fields(self.encoder).items():
            if shown(self.settings.get(name, value)) != shown(value):
                raise InvalidSetting(f"a card with {name} = {self.settings[name]} beside an encoder of {value}")
        if self.settings.get(NUM_CLASSES) != max(len(self.classes), FEWEST_CLASSES):
            raise InvalidSetting(f"num-classes = {self.settings.get(NUM_CLASSES)}: the card names {len(self.classes)}")
        Settings.parse(self.settings)

    @property
    def image_shape(self) -> str:
        """Channels x height x width of the images."""
        return str(self.settings["image-shape"])

    @property
    def features(self) -> str:
        """What the image path reads of a record: the encoder's tokens and numbers in each, or the image itself."""
        return features_shown(ImagePath(str(self.settings["image-path"])), self.encoder.feature_shape, self.image_shape)

    def fields(self) -> dict[str, object]:
        """Return everything that is compared, by field."""
        return {
            CLASSES: ", ".join(self.classes),
            **self.settings,
            **encoder_fields(self.encoder),
            FEATURES: self.features,
        }

    def over(self, given: Mapping[str, ConfigValue]) -> dict[str, ConfigValue]:
        """Return settings that were given, and the card's where none was; a size of 0 leaves the choice to the card."""
        return {**self.settings, **{name: value for name, value in given.items() if (name, value) != (_SIZE, 0)}}

    def differences(self, found: Mapping[str, object]) -> dict[str, tuple[str, str]]:
        """Return found and agreed values of fields that differ; what the card has no field for is not compared."""
        agreed = self.fields()
        pairs = {name: (shown(value), shown(agreed[name])) for name, value in found.items() if name in agreed}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def check(self, found: Mapping[str, object], whose: str, way_out: str) -> None:
        """Check that what somebody has is what was agreed on.

        `whose` begins the message of `CardMismatch`, which names each field that differs, with both values, and ends
        with the `way_out`.
        """
        if differing := self.differences(found):
            fields = "; ".join(f"{name} is {theirs}, the card has {ours}" for name, (theirs, ours) in differing.items())
            raise CardMismatch(
                f"{whose} differs from the federation card (version {self.version}): {fields}; {way_out}"
            )

    def check_settings(self, settings: Settings, whose: str, way_out: str) -> None:
        """Check that settings with all that they leave open are those of the card; as `check`."""
        found = agreed_settings(settings)
        if found[_SIZE] == 0:
            del found[_SIZE]
        self.check(found, whose, way_out)


def changes(before: FederationCard, after: FederationCard) -> dict[str, tuple[str, str]]:
    """Return what two versions say otherwise, by field; a field that one of them does not have is empty there."""
    old, new = ({name: shown(value) for name, value in card.fields().items()} for card in (before, after))
    names = dict.fromkeys([*old, *new])
    return {name: (old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name)}


def check_classes(classes: Sequence[str]) -> None:
    """Check names of a federation's classes, in order; raises `InvalidInput` if they cannot be told apart or shown."""
    if not classes:
        raise InvalidSetting("a federation card needs the names of its classes, in order: --class NAME for each")
    check_class_names(classes, "the federation card gives")
    for name in classes:
        if not name.isprintable() or len(name) > _NAME_CHARACTERS or name != name.strip() or ", " in name:
            raise InvalidSetting(
                f"{name!r} cannot be a class's name in the federation card: use at most {_NAME_CHARACTERS} printable "
                "characters without a comma before a space"
            )


def features_shown(path: ImagePath, features: Sequence[int], image_shape: str) -> str:
    """Return the shape of what an image path reads of a record, as a card has it."""
    return image_shape if path is ImagePath.PATCHES else "x".join(map(str, features))


def shown(value: object) -> str:
    """Return a value as people write it, numbers that are the same in one way."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, StrEnum):
        return value.value
    return repr(float(value)).removesuffix(".0") if isinstance(value, int | float) else str(value)
