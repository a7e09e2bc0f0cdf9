"""What `munkey-server card make` and `init` are given of a federation card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.card_draft import CardDraft
from fedmunkey.common.model.encoder_facts import EncoderFacts
from fedmunkey.common.model.federation_card import FederationCard, agreed_settings, check_classes
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.programs.options import EncoderOption, SettingOption, WeightsOption
from fedmunkey.common.settings.settings import FEWEST_CLASSES, Settings
from fedmunkey.common.settings.settings_text import ConfigValue, given_settings

_DECIDING = ("encoder", "image-shape", "guarantee")
"""Where one of these changes, what an earlier version had decided by them is decided anew."""

_KEPT_OF_ENCODER = ("encoder-pooling", "encoder-mirror")
_KEPT = (*_DECIDING, *_KEPT_OF_ENCODER, "exemplar-size", "learns-from", "renew-within", "fewest-changed")
_OF_ENCODER = ("encoder", "encoder-size", *_KEPT_OF_ENCODER, "image-shape")


@dataclass(frozen=True)
class CardOptions:
    """What is given; what is not, is as in the version before, or chosen."""

    class_name: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class's name, in the order of their numbers at every site. Repeatable."),
    ] = None
    image_shape: Annotated[
        str | None, typer.Option(help="Channels x height x width of the federation's images, such as 1x28x28.")
    ] = None
    encoder: EncoderOption = None
    weights: WeightsOption = None
    guarantee: Annotated[
        Guarantee | None, typer.Option(help="What a deletion means; short for --set guarantee=NAME.")
    ] = None
    epsilon: Annotated[
        float | None, typer.Option(help="With certified, the privacy budget; short for --set epsilon=NUMBER.")
    ] = None
    delta: Annotated[
        float | None, typer.Option(help="With certified, how often it may fail; short for --set delta=NUMBER.")
    ] = None
    setting: SettingOption = None
    proposal: Annotated[
        Path | None, typer.Option(help="What a site has proposed: the file that munkey-client card propose wrote.")
    ] = None

    def any_given(self) -> bool:
        """Return whether anything of a card was given."""
        return any(value is not None for value in vars(self).values())

    def draft(self, before: FederationCard | None) -> CardDraft:
        """Return what the version after another, or the first one, is to say.

        The encoder's weights are read, or downloaded, where they may be others than before. Raises `InvalidInput` if
        what was given cannot be used, or something is missing that has no default.
        """
        given = given_settings(
            self.setting,
            image_shape=self.image_shape,
            encoder=self.encoder,
            encoder_weights=self.weights,
            guarantee=None if self.guarantee is None else self.guarantee.value,
            epsilon=self.epsilon,
            delta=self.delta,
        )
        known = None if before is None else CardDraft(before.classes, before.encoder, before.settings)
        if self.proposal is not None:
            known = CardDraft.read(self.proposal)
        start = given if known is None else {**_kept(known, given), **given}
        if "image-shape" not in start:
            raise InvalidSetting("say what the federation's images are with --image-shape, such as 1x28x28")
        classes = tuple(self.class_name or (known.classes if known is not None else ()))
        check_classes(classes)
        settings = Settings.parse({**start, "num-classes": max(len(classes), FEWEST_CLASSES)})
        facts = _encoder(settings, known)
        return CardDraft(classes, facts, agreed_settings(settings.replace(encoder_size=facts.size)))


def _kept(known: CardDraft, given: dict[str, ConfigValue]) -> dict[str, ConfigValue]:
    """Return those settings of a version before, or a proposal, that hold beside what was given."""
    same = all(str(given.get(name, known.settings[name])) == str(known.settings[name]) for name in _DECIDING)
    return {name: value for name, value in known.settings.items() if same or name in _KEPT}


def _encoder(settings: Settings, known: CardDraft | None) -> EncoderFacts:
    """Return what an encoder is made of: as is known where it is the same, else as its weights say."""
    config = settings.to_config()
    if known is not None and not settings.encoder_weights:
        found = {name: config[name] for name in _OF_ENCODER if (name, config[name]) != ("encoder-size", 0)}
        if all(str(value) == str(known.settings[name]) for name, value in found.items()):
            return known.encoder
    # What reads weights imports torch, which takes seconds.
    from fedmunkey.common.model.model_choice import choose_facts

    return choose_facts(settings)
