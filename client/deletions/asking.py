"""Asking the federation to forget: who asks, for what, and the signed requests that are made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fedmunkey.client.deletions.requester import Requester, split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import (
    OFFICER,
    OFFICER_NAMES,
    DeletionRequest,
    Records,
    RequestStatus,
    Subject,
    Target,
    WholeSite,
)
from fedmunkey.common.errors import InvalidDeletion, ServiceUnavailable, count_of
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.service.deletion_service import DeletionService

Sign = Callable[[DeletionRequest], DeletionRequest]
"""Returns a request with its requester's signature."""


@dataclass(frozen=True)
class Wanted:
    """What is to be forgotten, still by its ids, which are shown to nobody; with neither, everything."""

    records: tuple[str, ...] = field(default=(), repr=False)
    subject: str = field(default="", repr=False)

    @property
    def everything(self) -> bool:
        """Whether everything is meant that one site holds."""
        return not self.records and not self.subject


def references_of(wanted: Wanted, secret: FederationSecret, site: str) -> Records | Subject:
    """Return records, at one site or (empty) anywhere, or a subject as the service may see them."""
    if wanted.records:
        return Records(frozenset(map(secret.reference, wanted.records)), site)
    return Subject(secret.reference(wanted.subject))


def ask_as_site(folder: SiteFolder, wanted: Wanted) -> tuple[Requester, Target]:
    """Return a site as the requester and what it asks for.

    Raises `InvalidDeletion` if the site has never held what is wanted.
    """
    key = SigningKey.read(folder.signing_key) if folder.signing_key.exists() else None
    with folder.open() as store:
        site = store.description.site
        if wanted.everything:
            return Requester(site, key, folder.read_secret() if key else None), WholeSite(site)
        secret = folder.read_secret()
        if wanted.subject and not store.records.knows_subject(secret.reference(wanted.subject)):
            raise InvalidDeletion(
                f"{site} holds no record of that subject, and no order has named it; compare the id, letter by letter, "
                "with the one in what was enrolled; nothing was asked for"
            )
        references = [secret.reference(record) for record in wanted.records]
        strangers = [
            not (store.records.holds(reference) or store.records.has_deleted(reference)) for reference in references
        ]
    if any(strangers):
        # The place stands for the id, which no error may hold.
        raise InvalidDeletion(
            f"{site} has never held {sum(strangers)} of the {count_of(len(strangers), 'record')} that were named; the "
            f"first is number {strangers.index(True) + 1}; correct the ids, nothing was asked for"
        )
    return Requester(site, key, secret), references_of(wanted, secret, site)


def requester_named(asking: str, key: Path | None, secret: Path | None) -> Requester:
    """Return the officer, or a site that asks from any machine; raises `InvalidDeletion` if a site has no key."""
    officer = asking in OFFICER_NAMES
    if not officer and key is None:
        raise InvalidDeletion(f"--as {asking} signs what it asks for; name its --signing-key, or ask with --site-dir")
    return Requester(
        OFFICER if officer else asking,
        None if key is None else SigningKey.read(key),
        None if secret is None else FederationSecret.read(secret),
    )


def target_named(asker: Requester, wanted: Wanted, site: str | None) -> Target:
    """Return what a requester with no key store at hand asks for, at a site or, for the officer, at every one.

    Raises `InvalidDeletion` if it may not be asked for, or the federation secret is missing.
    """
    officer = asker.name == OFFICER
    if not officer and site not in (None, asker.name):
        raise InvalidDeletion(f"--as {asker.name} asks for what {asker.name} holds; leave --site out")
    where = site if officer else asker.name
    if wanted.everything:
        if not where:
            raise InvalidDeletion("--everything is about one site; name it with --site")
        return WholeSite(where)
    if wanted.subject and site is not None:
        raise InvalidDeletion("a subject is forgotten wherever the requester may ask; leave --site out")
    if site == "":
        raise InvalidDeletion("--site is empty; name a site, or leave it out to ask every site")
    if asker.secret is None:
        raise InvalidDeletion("ids become references with the federation secret; name its file with --secret")
    return references_of(wanted, asker.secret, where or "")


def sign_for(
    service: DeletionService, asker: Requester, part: DeletionRequest, days: float, *, again: bool = False
) -> DeletionRequest:
    """Sign a request; with `again` as it was, where the ledger has lost it and sites have carried it out."""
    lost = service.recalled(part.request_id, "" if asker.name == OFFICER else asker.name) if again else ()
    return asker.sign_again(part, lost, utc_now()) or asker.sign(part, utc_now(), days)


def submit_parts(service: DeletionService, request: DeletionRequest, sign: Sign) -> Iterator[RequestStatus]:
    """Submit a request, in parts where it names more records than one may; yield the status of each part."""
    for part in split(request):
        try:
            yield service.submit(sign(part))
        except ServiceUnavailable as error:
            # The request may have arrived and only the answer been lost; with its id, asking again is asking once.
            raise ServiceUnavailable(f"{error}; then ask again with --request-id {request.request_id}") from None
