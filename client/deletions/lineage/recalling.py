"""What descends from records that were erased: releases of shared weights, and models that were given away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fedmunkey.client.deletions.lineage.exported_models import ModelState, states
from fedmunkey.client.deletions.lineage.taken_releases import current_release, holding, is_later
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import RequestState
from fedmunkey.common.errors import InvalidDeletion, InvalidInput, InvalidProof
from fedmunkey.common.proofs.certificate import Certificate
from fedmunkey.common.proofs.verification import Verified
from fedmunkey.common.service.deletion_service import DeletionService


@dataclass(frozen=True)
class Reason:
    """A request for which a model must be replaced, and why."""

    request_id: str
    why: str


@dataclass(frozen=True)
class Lineage:
    """What may hold what a request erased at a site: digests of releases, and models that were given away.

    `current` is the digest of the release that the site answers from; empty if it has none.
    """

    request_id: str
    order: int
    entries: int
    releases: tuple[str, ...]
    models: tuple[ModelState, ...]
    current: str

    def document(self) -> dict[str, Any]:
        """Return it, JSON-ready."""
        return {
            "request": self.request_id,
            "order": self.order,
            "entries": self.entries,
            "releases": [{"digest": one, "renewed": one != self.current} for one in self.releases],
            "models": [state.document() for state in self.models],
        }


def lineage(folder: SiteFolder, store: KeyStore, request_id: str) -> Lineage:
    """Return what descends from what a request erased; raises `InvalidInput` if the site has no order of it."""
    answers = [answer for answer in store.orders.read_answers() if answer.request_id == request_id]
    if not answers:
        raise InvalidInput(f"the site has had no order of request {request_id}; munkey-client status lists its orders")
    answer = answers[-1]
    releases = tuple(holding(folder, answer.number)) if answer.entries else ()
    models = tuple(state for state in states(folder, store) if request_id in state.requests)
    return Lineage(request_id, answer.number, answer.entries, releases, models, current_release(folder))


@dataclass(frozen=True)
class Told:
    """What is known of a request over all sites: who erased entries, and which weights were solved for without them.

    `exported` are the digests of the files that receipts name, `renewed` is that of the weights, empty if there are
    none.
    """

    request_id: str
    erasing: frozenset[str]
    renewed: str
    exported: frozenset[str] = frozenset()

    @classmethod
    def by(cls, verified: Verified) -> Told:
        """Return what a certificate says that was checked."""
        erasing = frozenset(receipt.answer.site for receipt in verified.counted if receipt.answer.entries)
        named = frozenset(digest for receipt in verified.counted for digest in receipt.exported)
        renewed = verified.renewal.release if verified.renewal else ""
        return cls(verified.terms.request_id, erasing, renewed, named)


def ask(service: DeletionService, requests: Iterable[str], site: str) -> Iterator[Told]:
    """Ask a deletion service about requests that a site knows of; yield those by which others have erased entries.

    It is the coordinator's word, and of requests that did not address the site it says nothing. Raises
    `ServiceUnavailable`.
    """
    for request_id in requests:
        try:
            status = service.get(request_id)
        except InvalidDeletion:
            # A ledger that was restored does not know it any more.
            continue
        answers = [progress.acknowledgement for progress in status.sites if progress.acknowledgement is not None]
        erasing = frozenset(answer.site for answer in answers if answer.entries) - {site}
        completed = status.state is RequestState.COMPLETED
        if not erasing or (completed and status.renew_by is None):
            continue
        yield Told(request_id, erasing, _renewed(service, request_id) if completed else "")


def reason_for(told: Told, digest: str, release: str, site: SiteFolder | None) -> Reason | None:
    """Return why a model must be replaced for what is known of a request; None where it need not.

    `digest` is that of the model's file, `release` that of the shared weights in it. With a site's folder what was
    erased at that site alone is left to the site's own orders, and later releases are known to it.
    """
    if digest in told.exported:
        return Reason(told.request_id, "the receipt of the site that gave it away names it")
    erasing = set(told.erasing)
    if site is not None:
        with site.open() as store:
            erasing.discard(store.description.site)
    if not erasing:
        return None
    where = ", ".join(sorted(erasing))
    if not told.renewed:
        return Reason(told.request_id, f"{where} erased records, and nothing shows that the weights were renewed")
    if release == told.renewed or (site is not None and is_later(site, release, told.renewed)):
        return None
    return Reason(told.request_id, f"{where} erased records, and the weights were renewed as {told.renewed[:16]}")


def _renewed(service: DeletionService, request_id: str) -> str:
    """Return the digest of the weights that were renewed for a request; empty if none is shown."""
    try:
        renewal = Certificate.from_bytes(service.certificate(request_id)).renewal
    except (InvalidDeletion, InvalidProof):
        return ""
    return "" if renewal is None else renewal.note.release
