"""`coordinator.toml`: everything that the coordinator's processes are started from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.identities.card_words import NO_CARD
from fedmunkey.common.identities.signed_card import SignedCard
from fedmunkey.common.model.federation_card import encoder_fields
from fedmunkey.common.programs.settings_file import SettingsFile, on_this_machine
from fedmunkey.common.settings.addresses import loopback_address
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import Address, ConfigValue, OptionalAddress, explain, kebab
from fedmunkey.server.ledger.due import DUE_DAYS
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder, ledger_of

DELETION_SERVICE, SUPERLINK, RENEWALS, NOTICES = "deletion-service", "superlink", "renewals", "notices"
"""The coordinator's programs."""

SUPERLINK_READY = "SuperLink for sites at "
"""What the SuperLink's first line begins with, once it serves."""


class Notices(BaseModel):
    """Who is told of new, late, refused and completed requests and of alarms: section [notices]."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=kebab, populate_by_name=True)

    webhook: str = Field("", pattern=r"^(https?://\S+)?$", description="URL that each notice is posted to, as JSON.")
    webhook_secret: Path | None = Field(
        None, description="File with the secret by which the receiver checks each post; needed with webhook."
    )
    mail_to: tuple[str, ...] = Field((), description="E-mail addresses that each notice goes to.")
    mail_from: str = Field("", description="The sender's address; needed with mail-to.")
    smtp: OptionalAddress = Field(
        "", description="Mail server; TLS from the start on port 465, by STARTTLS elsewhere; needed with mail-to."
    )
    smtp_user: str = Field("", description="Name at the mail server, if it asks for one.")
    smtp_password: Path | None = Field(None, description="File with the password of smtp-user.")

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.webhook and self.webhook_secret is None:
            raise ValueError("webhook needs webhook-secret, a file with a secret that its receiver has as well")
        if self.mail_to and not (self.mail_from and self.smtp):
            raise ValueError("mail-to needs mail-from and smtp")
        return self


class CoordinatorFile(SettingsFile):
    """What `coordinator.toml` says; what each line means is in its description, of which docs/files.md is made."""

    coordinator_dir: Path = Field(description="The coordinator's folder, which `munkey-server init` makes.")
    superlink: Address = Field(
        "0.0.0.0:8443", description="Where sites reach Flower's SuperLink, and nothing of it but what sites need."
    )
    superlink_control: Annotated[Address, on_this_machine("start runs")] = Field(
        "127.0.0.1:8444", description="Where runs are started: on this machine only."
    )
    deletion_service: Address = Field(
        "0.0.0.0:9440", description="Where sites and officers reach the deletion service."
    )
    joining: Address = Field("0.0.0.0:9441", description="Where invited members join.")
    metrics: OptionalAddress = Field("", description="Where Prometheus metrics are served; nowhere if empty.")
    database: str = Field(
        "",
        description="The ledger: a file, or `postgresql://user@host/database`; where the coordinator's folder has it "
        "if empty.",
    )
    keys: Path | None = Field(
        None, description="File of the keys that are trusted; `trust.json` in the coordinator's folder if left out."
    )
    due_days: int = Field(DUE_DAYS, ge=1, le=365, description="Days from a request to when it is late.")
    keep_runs: int = Field(
        10, ge=1, le=10_000, description="Of how many runs the weights are kept, beside those in use."
    )
    notices: Notices = Field(Notices(), description="Who is told of requests and alarms: section `[notices]`.")
    run: dict[str, ConfigValue] = Field(
        default_factory=dict, description="Settings of training runs (settings.md): section `[run]`."
    )

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Self:
        """Check what a file at some path says, the settings of runs as well; as `read`."""
        if "enrolment" in content:
            raise InvalidSetting(f"{path}: enrolment is called joining; rename it")
        try:
            Notices.model_validate(content.get("notices", {}))
        except ValidationError as error:
            known = [kebab(name) for name in Notices.model_fields]
            raise InvalidSetting(f"{path}: notices: {explain(error.errors()[0], known)}") from None
        checked = super().parse(content, path)
        folder = path.absolute().parent
        files = {name: folder / value for name, value in checked.notices if isinstance(value, Path)}
        checked = checked.model_copy(update={"notices": checked.notices.model_copy(update=files)})
        try:
            checked.run_settings()
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: run: {error}") from None
        return checked

    @property
    def folder(self) -> Path:
        """Holds identity, certificate authority, ledger, and what Flower and runs write."""
        return self.coordinator_dir

    @property
    def listening(self) -> Mapping[str, str]:
        """Where the coordinator's programs listen."""
        names = ("superlink", "superlink_control", "deletion_service", "joining", "metrics")
        return {kebab(name): getattr(self, name) for name in names}

    @property
    def ledger(self) -> str:
        """The ledger, an SQLite file or a PostgreSQL address."""
        return ledger_of(self.database, CoordinatorFolder(self.coordinator_dir))

    @property
    def flower_database(self) -> Path:
        """Where the SuperLink keeps its nodes and runs, so that a site is the same node after a restart."""
        return self.flower_home / "superlink.sqlite"

    @property
    def runs(self) -> Path:
        """Where each run has a folder of its own, for its weights and events."""
        return CoordinatorFolder(self.coordinator_dir).runs

    def read_card(self) -> SignedCard | None:
        """Return the federation card in force, None where there is none; raises `InvalidProof` if it was changed."""
        return CoordinatorFolder(self.coordinator_dir).read_cards().current

    def run_settings(self, overrides: dict[str, ConfigValue] | None = None) -> Settings:
        """Return the settings of a run; what the file does not say is as the federation card has it.

        `overrides` take precedence over the file's. Raises `InvalidSetting`, and `InvalidProof` for a changed card.
        """
        own: dict[str, ConfigValue] = {
            "deletion-service": loopback_address(self.deletion_service),
            "deletion-identity": str(self.identity),
            "output-dir": str(self.runs),
        }
        given = {**own, **self.run, **(overrides or {})}
        signed = self.read_card()
        return Settings.parse(
            given if signed is None else {**signed.card.over(given), "federation-card": signed.digest}
        )

    def check_card(self, settings: Settings) -> SignedCard:
        """Return the federation card that settings of a run are under.

        Raises `InvalidSetting` if there is none, and `CardMismatch` if the settings contradict it, or name weights of
        another encoder.
        """
        signed = self.read_card()
        if signed is None:
            raise InvalidSetting(
                f"{NO_CARD}; make it: munkey-server card make --coordinator-dir {self.coordinator_dir} "
                "--class NAME --image-shape CxHxW ..."
            )
        way_out = "correct [run] or --set, or agree on another version: munkey-server card make --reason ..."
        signed.card.check_settings(settings, "the run", way_out)
        if settings.encoder_weights:
            # No run reads them; whoever names a file means something by it.
            from fedmunkey.common.model.model_choice import choose_facts

            signed.card.check(encoder_fields(choose_facts(settings)), "the run", way_out)
        return signed
