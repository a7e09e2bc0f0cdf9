"""How records come into a site's folder: checks before the first byte is written, and what follows the last record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import link
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.agreement import check_encoder_agreed, check_holdings, check_settings_agreed
from fedmunkey.client.importing.conventions import FILE
from fedmunkey.client.importing.encoding import encode, enrol
from fedmunkey.client.key_store import Enrolled, KeyStore, StoreDescription
from fedmunkey.client.key_store.aside import folder_aside
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.record_ciphers import cipher_file_of, clear_unused_keys, master_key_of
from fedmunkey.client.key_store.on_disk.remembering import begin_lost_journal
from fedmunkey.client.key_store.on_disk.taking_over import take_over_journal
from fedmunkey.client.learning.exact_state import read_shared_model, refresh_tokens
from fedmunkey.client.learning.last_round import LAST_ROUND
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder, describe_store, model_shape
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER_NAMES
from fedmunkey.common.errors import InvalidInput, InvalidSetting, KeyStoreError
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.federation_card import FederationCard
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.private_files import locked_folder
from fedmunkey.common.settings.settings import FEWEST_CLASSES, Settings
from fedmunkey.common.settings.settings_text import ConfigValue


@dataclass(frozen=True)
class SiteEnrolment:
    """Everything that was chosen for an enrolment but the records.

    Attributes
    ----------
    folder : SiteFolder
        The site's folder, which need not exist.
    asked : frozenset of str
        Names of the settings that a person gave.
    new_consent : frozenset of str
        Ids of records that may come back after a deletion.
    master_key : Path, optional
        Where the master key of a site that is made is kept; beside the key store by default.
    card : FederationCard, optional
        What the members have agreed on, if the site knows.
    """

    folder: SiteFolder
    site: str
    settings: Settings
    encoder: Encoder
    shape: ModelShape
    secret: FederationSecret
    asked: frozenset[str]
    new_consent: frozenset[str]
    master_key: Path | None = None
    card: FederationCard | None = None

    def check(self) -> None:
        """Check that what is to be enrolled is of the federation card, and fits the key store, if there is one.

        Raises `CardMismatch` if it, or what the site holds, is not as the members have agreed, and `KeyStoreError` if
        the store is another site's, or was made for other settings or with another secret.
        """
        if self.card is not None:
            check_settings_agreed(self.card, self.settings, self.site)
            check_encoder_agreed(self.card, self.encoder, f"what {self.site} would take in")
        if not self.folder.key_store.exists():
            return
        wanted = describe_store(self.site, self.settings, self.encoder, self.shape)
        with self.folder.open() as store:
            held = store.description
            if held.site != wanted.site:
                raise KeyStoreError(
                    f"{self.folder.path} belongs to site {held.site!r}, not {wanted.site!r}; choose another --site-dir"
                )
            if self.card is not None:
                check_holdings(self.card, self.folder, store)
            check_encoder(held, self.encoder, "give the same --encoder and --weights, or choose another --site-dir")
            if held.image_path is not wanted.image_path:
                raise KeyStoreError(
                    f"the key store was made for image-path = {held.image_path}, not {wanted.image_path}; "
                    f"add --set image-path={held.image_path}, or choose another --site-dir"
                )
            model_shape(self.settings, held)
            self._check_promise(held)
            if not store.records.agrees_with(self.secret):
                raise KeyStoreError(
                    f"the records in {self.folder.path} were enrolled with another federation secret; give that one"
                )

    def _check_promise(self, held: StoreDescription) -> None:
        """Check that no other promise was asked for than the one that the store's patients were given."""
        for name, promised, wanted in (
            ("guarantee", held.guarantee, self.settings.guarantee),
            ("epsilon", held.epsilon, self.settings.epsilon),
            ("delta", held.delta, self.settings.delta),
        ):
            if name in self.asked and wanted != promised:
                raise KeyStoreError(
                    f"the site has promised its patients {name} = {promised}, not {wanted}; leave --{name} out to add "
                    "records under that promise, or choose another --site-dir"
                )

    def make(self) -> None:
        """Make what the site's folder lacks of a secret and a key store.

        Each file is made aside and appears complete or not at all, so that an interrupted enrolment can go on. A key
        store that was here before has left a journal, which the new one takes over; without it the worst is claimed.
        """
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.path.chmod(0o700)
        if not self.folder.key_store.exists() and not self._make_store():
            self.check()
        # After the store: at a member, a secret says that there was one.
        if not self.folder.secret.exists():
            with suppress(FileExistsError):
                self.secret.write(self.folder.secret)
        _check_secret(self.folder, self.secret, "what was given")

    def _make_store(self) -> bool:
        """Make the key store; returns whether it was made here, and not by another process that was as quick."""
        kept = self.folder.key_store
        with locked_folder(self.folder.path):
            if kept.exists():
                return False
            clear_unused_keys(kept)
        self._prepare_journal(Journal(kept))
        # What is made aside is sealed with the master key that is there, and what a journal says is taken over once.
        with folder_aside(self.folder.path, "enrolling") as aside, locked_folder(self.folder.path):
            if kept.exists():
                return False
            clear_unused_keys(kept)
            making = SiteFolder(aside)
            made = making.key_store
            if self.master_key is None and master_key_of(kept).exists():
                link(master_key_of(kept), master_key_of(made))
            making.create(
                self.site, self.settings, self.encoder, self.shape, master_key=self.master_key, earlier=kept
            ).close()
            # The store last: without its keys it would be of no use.
            for its_file in (master_key_of, cipher_file_of, lambda store: Journal(store).path, lambda store: store):
                if its_file(made).exists() and not its_file(kept).exists():
                    link(its_file(made), its_file(kept))
        return True

    def _prepare_journal(self, journal: Journal) -> None:
        """Bring what an earlier store has left up to date, or begin with the worst where that is lost."""
        description = describe_store(self.site, self.settings, self.encoder, self.shape)
        if journal.is_damaged() or (_was_used(self.folder) and not journal.path.exists()):
            # Another process may be as quick.
            with suppress(FileExistsError):
                begin_lost_journal(journal, description)
        take_over_journal(journal, description)


def _was_used(folder: SiteFolder) -> bool:
    """Return whether a folder without a journal has what only a site with a key store comes by."""
    if folder.secret.exists() and folder.identity.exists():
        return True
    notes = (FILE, LAST_ROUND, "proofs.sqlite")
    return folder.shared_weights.exists() or any((folder.path / name).exists() for name in notes)


class OpenEnrolment:
    """Takes records into a site's key store, which is made when it is first needed; it has to be closed.

    `on_made` is called once, when the site's folder has all that it needs for the first record.
    """

    def __init__(self, enrolment: SiteEnrolment, on_made: Callable[[], None] = lambda: None) -> None:
        self._enrolment = enrolment
        self._on_made = on_made
        self._store: KeyStore | None = None
        self._made = False

    def close(self) -> None:
        """Close the key store."""
        if self._store is not None:
            self._store.close()

    @property
    def store(self) -> KeyStore | None:
        """The site's key store, if it has one."""
        if self._store is None and self._enrolment.folder.key_store.exists():
            self._store = self._enrolment.folder.open()
        return self._store

    def make(self) -> KeyStore:
        """Return the site's key store; what the site's folder lacks is made."""
        if not self._made:
            self._enrolment.make()
            self._on_made()
            self._made = True
        return self.store or self._enrolment.folder.open()

    def take(self, records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
        """Encode and add n records; return counts, and (n,) which were refused since they were deleted."""
        store, secret = self.make(), self._enrolment.secret
        batches = encode(self._enrolment.encoder, records)
        counts = enrol(store, batches, secret, new_consent=self._enrolment.new_consent)
        left_out = [
            bool(counts.refused or counts.opted_out) and not store.records.holds(secret.reference(name))
            for name in records.record_ids
        ]
        return counts, np.array(left_out, dtype=np.bool_)

    def complete(self, show: Callable[[str, int, int], None]) -> dict[str, int]:
        """Finish what follows from records, also those of an enrolment that was interrupted; return records by split.

        `show` is called with what is being done, and how much of how much is.
        """
        if self.store is not None:
            _complete_arrivals(self._enrolment.folder, self.store, show)
        return self.count()

    def count(self) -> dict[str, int]:
        """Return the site's records by split."""
        return {split.value: self.store.records.count(split) if self.store else 0 for split in Split}


def check_site_name(site: str) -> None:
    """Check what a person gave as a site's name; raises `InvalidInput` if it cannot be one."""
    if not site or not site.isprintable() or site != site.strip():
        raise InvalidInput(f"--site {site!r} cannot be a site's name: use printable characters")
    if site in OFFICER_NAMES:
        raise InvalidInput(f"--site {site!r} cannot be a site's name: its holder may ask for everything")


def _check_secret(folder: SiteFolder, given: FederationSecret, what: str) -> None:
    if folder.secret.exists() and folder.read_secret().reference("") != given.reference(""):
        raise InvalidInput(f"{what} is another secret than the one in {folder.path}; leave --secret out")


def read_site_secret(folder: SiteFolder, path: Path | None) -> FederationSecret:
    """Return the federation secret from the file that a person gave, or the one that the site's folder keeps.

    Raises `InvalidInput` if there is neither, they differ, or the file does not hold a secret.
    """
    if path is None:
        if not folder.secret.exists():
            raise InvalidInput(
                f"{folder.path} has no federation secret yet; name it with --secret (munkey-client secret makes one)"
            )
        return folder.read_secret()
    given = FederationSecret.read(path)
    _check_secret(folder, given, str(path))
    return given


def fit_classes(given: Mapping[str, ConfigValue], classes: int, card: FederationCard | None = None) -> Settings:
    """Return the settings that were given; for as many classes as there are, where they do not say for how many.

    What was not given is as in the federation card, if there is one. Raises `InvalidSetting` if they are for fewer.
    """
    own = {"num-classes": max(classes, FEWEST_CLASSES), **given}
    settings = Settings.parse(own if card is None else card.over(given))
    if settings.num_classes < classes:
        raise InvalidSetting(
            f"num-classes = {settings.num_classes}: there are {classes} classes; give at least as many, or leave "
            "the setting out"
        )
    return settings


def check_encoder(held: StoreDescription, encoder: Encoder, way_out: str) -> None:
    """Check that an encoder is the one that made a store's keys; raises `KeyStoreError` with a way out."""
    if encoder.fingerprint != held.encoder:
        raise KeyStoreError(
            f"the key store's keys are of encoder {held.encoder}, these would be of {encoder.fingerprint}; {way_out}"
        )


def _complete_arrivals(folder: SiteFolder, store: KeyStore, show: Callable[[str, int, int], None]) -> None:
    """Give arrivals their neighbour lists, and the tokens that follow from the site's shared weights.

    Tokens are left alone where they are trained together with the weights, and before the site has any weights. Under
    `exact` both are found when they are needed.
    """
    if store.description.guarantee is Guarantee.EXACT:
        return
    # The site's agent may carry out a deletion meanwhile; what is left to list is then listed without it.
    store.until_unchanged(lambda _: list_arrivals(store, show))
    model = read_shared_model(folder)
    if model is not None and store.description.guarantee is not Guarantee.EMPIRICAL:
        total, done = store.records.count(Split.TRAIN), 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            show("computing exemplar tokens", done, total)

        refresh_tokens(store, model, count)
