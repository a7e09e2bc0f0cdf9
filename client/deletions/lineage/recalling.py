"""What descends from records that were erased: releases of shared weights, and models that were given away."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fedmunkey.client.deletions.lineage.exported_models import ModelState, states
from fedmunkey.client.deletions.lineage.taken_releases import holding, is_later
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.proofs.verification import Verified


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
    return Lineage(request_id, answer.number, answer.entries, releases, models, _current(folder))


def by_certificate(verified: Verified, digest: str, release: str, site: SiteFolder | None) -> Reason | None:
    """Return why a certificate says that a model must be replaced; None where it does not.

    `digest` is that of the model's file, `release` that of the shared weights in it. With a site's folder what was
    erased at that site alone is left to the site's own orders, and later releases are known to it.
    """
    request_id = verified.terms.request_id
    if any(digest in receipt.exported for receipt in verified.counted):
        return Reason(request_id, "the receipt of the site that gave it away names it")
    erasing = {receipt.answer.site for receipt in verified.counted if receipt.answer.entries}
    if site is not None:
        with site.open() as store:
            erasing.discard(store.description.site)
    if not erasing:
        return None
    where = ", ".join(sorted(erasing))
    if verified.renewal is None:
        return Reason(request_id, f"{where} erased records, and the certificate shows no renewed weights")
    if verified.renewal.release == release or (site is not None and is_later(site, release, verified.renewal.release)):
        return None
    return Reason(
        request_id, f"{where} erased records, and the weights were renewed as {verified.renewal.release[:16]}"
    )


def _current(folder: SiteFolder) -> str:
    try:
        said = json.loads(folder.shared_weights.with_suffix(".json").read_text(encoding="utf-8"))
        return str(said["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
