"""Whose console it is: who asks and signs, by which keys certificates are checked, and what is kept on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmunkey.client.console.notes import Notes
from fedmunkey.client.deletions.asking import Wanted, ask_as_site, requester_named, target_named
from fedmunkey.client.deletions.requester import DEFAULT_DAYS, Requester
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import OFFICER, Target
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Approved, TrustedKeys

NOTES_FILE = "console-notes.jsonl"


@dataclass(frozen=True)
class Office:
    """An officer, or a site by its folder.

    `trust` is the file of trusted keys, None where none was named. Requests may be carried out for `days`.
    """

    asker: Requester
    notes: Notes
    trust: Path | None = None
    folder: SiteFolder | None = None
    days: float = DEFAULT_DAYS

    @classmethod
    def of_officer(cls, key: Path, secret: Path, trust: Path | None, days: float = DEFAULT_DAYS) -> Office:
        """Return the officer's, whose notes lie beside the key; raises `InvalidInput` if a file cannot be used."""
        office = cls(requester_named(OFFICER, key, secret), Notes(key.with_name(NOTES_FILE)), trust, days=days)
        office.read_keys()
        return office

    @classmethod
    def of_site(cls, folder: SiteFolder, days: float = DEFAULT_DAYS) -> Office:
        """Return a site's, with what its folder holds; raises `KeyStoreError` if its key store cannot be used."""
        key = SigningKey.read(folder.signing_key) if folder.signing_key.exists() else None
        with folder.open() as store:
            asker = Requester(store.description.site, key, folder.read_secret())
        trust = folder.trust if folder.trust.exists() else None
        return cls(asker, Notes(folder.path / NOTES_FILE), trust, folder, days)

    @property
    def is_officer(self) -> bool:
        """Whether it asks for anything, anywhere."""
        return self.asker.name == OFFICER

    @property
    def officers(self) -> int:
        """How many officers must have signed before a whole site is forgotten, as the trusted keys say."""
        keys = self.read_keys()
        return 1 if keys is None else keys.officers

    def officers_for(self, kind: str) -> int:
        """Return how many officers must have signed a request for a whole site (`site`), or for anything else."""
        keys = self.read_keys()
        if keys is None or (kind != "site" and (keys.approved is not Approved.ALL or not self.is_officer)):
            return 1
        return keys.officers

    def read_keys(self) -> TrustedKeys | None:
        """Return the trusted keys as they are now; raises `InvalidProof` if the file cannot be used."""
        return None if self.trust is None else TrustedKeys.read(self.trust)

    def target(self, wanted: Wanted, site: str | None) -> Target:
        """Return what is asked for, by references; raises `InvalidDeletion` if this office may not ask for it."""
        if self.folder is not None:
            return ask_as_site(self.folder, wanted)[1]
        return target_named(self.asker, wanted, site)

    def signing_key(self) -> SigningKey:
        """Return what signs; raises `InvalidProof` if there is nothing."""
        if self.asker.key is None:
            raise InvalidProof("there is no key here that signs; munkey-client signing-keys new makes one")
        return self.asker.key

    def check_may_hand_on(self) -> None:
        """Check that this is an officer, who alone signs with others; raises `InvalidDeletion`."""
        if not self.is_officer:
            raise InvalidDeletion("only officers sign together; a site asks by itself for what it holds")
