"""Who signs in a run: the officer, the sites and the log, and the files that say whose keys are believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from fedmunkey.client.deletions.requester import DEFAULT_DAYS, Requester
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys

LOG_KEY, TRUST = "log-key.pem", "trust.json"


@dataclass
class Signers:
    """The keys of a federation's members, in files as they have them.

    `officers` are the files of the officer's keys, of which the last signs; every folder in which a site or the
    coordinator keeps whom it trusts is in `trusting`.
    """

    folder: Path
    sites: dict[str, SiteFolder]
    secret: FederationSecret
    officers: list[Path] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, sites: dict[str, SiteFolder], secret: FederationSecret) -> Signers:
        """Make a key for each, and have sites and coordinator trust them as `docs/operations.md` says."""
        made = cls(folder, sites, secret)
        officer, log = SigningKey.generate(), SigningKey.generate()
        officer.write_pair(made.next_officer())
        log.write_pair(folder / LOG_KEY)
        trusted = TrustedKeys((TrustedKey(made.officer.stem, Role.OFFICER, officer.public),))
        at_coordinator = trusted
        for name, site in sites.items():
            key = SigningKey.generate()
            key.write_pair(site.signing_key)
            at_coordinator = at_coordinator.add(TrustedKey(name, Role.SITE, key.public))
            trusted.add(TrustedKey("coordinator", Role.LOG, log.public)).write(site.trust)
        at_coordinator.write(folder / TRUST)
        return made

    @property
    def officer(self) -> Path:
        """The key with which the officer signs."""
        return self.officers[-1]

    def next_officer(self) -> Path:
        """Return the file of a key that is the officer's from now on."""
        self.officers.append(self.folder / f"officer-{len(self.officers) + 1}.pem")
        return self.officer

    @property
    def trusting(self) -> list[Path]:
        """The folders of those who have to be told whom to trust."""
        return [self.folder, *(site.path for site in self.sites.values())]

    def sign(self, request: DeletionRequest, now: datetime) -> DeletionRequest:
        """Return a request with the signature of its requester."""
        return self._requester(request).sign(request, now, DEFAULT_DAYS)

    def is_good(self, request: DeletionRequest, now: datetime) -> bool:
        """Return whether a signed request may still be heard for the first time: it lives, and so does its key."""
        envelope, terms = OpenedRequest.of(request).signed()
        current = {signature.key_id for signature in envelope.signatures} == {self._key(request).public.key_id}
        return current and now < terms.expires

    def sign_again(self, request: DeletionRequest, lost: Sequence[bytes], now: datetime) -> DeletionRequest | None:
        """Return a request as it was before a ledger lost it, by receipts that were given back; None without any."""
        return self._requester(request).sign_again(replace(request, signature=b""), lost, now)

    def _requester(self, request: DeletionRequest) -> Requester:
        return Requester(request.requester, self._key(request), self.secret)

    def _key(self, request: DeletionRequest) -> SigningKey:
        officer = request.requester == OFFICER
        return SigningKey.read(self.officer if officer else self.sites[request.requester].signing_key)
