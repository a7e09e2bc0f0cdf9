"""What `munkey-client enrol` and `munkey-client import` have in common: who enrols what under which settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.client.commands.named_ids import read_ids
from fedmunkey.client.commands.options import (
    EncoderOption,
    JsonOption,
    SettingOption,
    SiteDirOption,
    WeightsOption,
)
from fedmunkey.client.importing.agreement import check_settings_agreed, read_card
from fedmunkey.client.importing.identifiers import plain_id
from fedmunkey.client.importing.site_enrolment import SiteEnrolment, check_site_name, read_site_secret
from fedmunkey.client.records.dataset import Consent
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue, given_settings


@dataclass(frozen=True)
class EnrolmentOptions:
    """What both commands are given."""

    site_dir: SiteDirOption
    site: Annotated[str, typer.Option(help="The site's name, as the coordinator knows it.")]
    secret: Annotated[
        Path | None, typer.Option(help="The federation secret; needed the first time, the site's folder keeps a copy.")
    ] = None
    consent: Annotated[Consent, typer.Option(help="Consent of the records of which the file does not say it.")] = (
        Consent.REVOCABLE
    )
    new_consent: Annotated[
        Path | None,
        typer.Option(help="Record ids, one a line, that were deleted and for which consent was given anew."),
    ] = None
    setting: SettingOption = None
    encoder: EncoderOption = None
    weights: WeightsOption = None
    guarantee: Annotated[
        Guarantee | None,
        typer.Option(help="What the site promises its patients a deletion means; short for --set guarantee=NAME."),
    ] = None
    epsilon: Annotated[
        float | None, typer.Option(help="With certified, the promised budget; short for --set epsilon=NUMBER.")
    ] = None
    delta: Annotated[
        float | None, typer.Option(help="With certified, how often it may fail; short for --set delta=NUMBER.")
    ] = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        """Check the site's name; raises `InvalidInput`."""
        check_site_name(self.site)

    @property
    def folder(self) -> SiteFolder:
        """The site's folder, which need not exist."""
        return SiteFolder(self.site_dir)

    @cached_property
    def card(self) -> FederationCard | None:
        """The federation card that the site has taken over, if any."""
        return read_card(self.folder)

    def settings(self, **shorthands: ConfigValue | None) -> dict[str, ConfigValue]:
        """Return the settings that were given, also by a command's own options, by their kebab-case names."""
        return given_settings(
            self.setting,
            encoder=self.encoder,
            encoder_weights=self.weights,
            guarantee=self.guarantee,
            epsilon=self.epsilon,
            delta=self.delta,
            **shorthands,
        )

    def read_new_consent(self, records: Iterable[str], source: Path) -> frozenset[str]:
        """Return the ids with new consent; raises `InvalidDataset` where one is not among the records of a file."""
        if self.new_consent is None:
            return frozenset()
        ids = frozenset(map(plain_id, read_ids(self.new_consent)))
        unknown = len(ids.difference(records))
        if unknown:
            raise InvalidDataset(
                f"{unknown} of the {len(ids)} record ids in {self.new_consent} are not in {source}; correct them"
            )
        return ids

    def enrolment(
        self, settings: Settings, asked: Iterable[str], new_consent: frozenset[str], master_key: Path | None = None
    ) -> SiteEnrolment:
        """Return what was chosen, checked against the federation card and what the site has; nothing is written."""
        secret = read_site_secret(self.folder, self.secret)
        if self.card is not None:
            # Before weights of another encoder are read, or downloaded.
            check_settings_agreed(self.card, settings, self.site)
        shape, encoder = choose_shape(settings), choose_encoder(settings)
        enrolment = SiteEnrolment(
            self.folder,
            self.site,
            settings,
            encoder,
            shape,
            secret,
            frozenset(asked),
            new_consent,
            master_key,
            self.card,
        )
        enrolment.check()
        return enrolment
