"""Who asks for deletions, in how many requests, and the signature under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import DeletionRequest, Outcome, Records, RequestState, RequestStatus, Target
from fedmunkey.common.errors import DeletionExists, InvalidDeletion
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import MAXIMUM_DAYS, OpenedRequest, sign_request
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES

DEFAULT_DAYS = 90.0
_LONGEST = timedelta(days=MAXIMUM_DAYS)


@dataclass(frozen=True)
class Requester:
    """Somebody who asks for deletions: the officer, or a site by its name.

    Without a key its requests are unsigned, and sites that trust keys refuse them. The secret names the federation in
    what is signed.
    """

    name: str
    key: SigningKey | None = None
    secret: FederationSecret | None = field(default=None, repr=False)

    def sign(self, request: DeletionRequest, now: datetime, days: float) -> DeletionRequest:
        """Return the request with a signature that is good for some days, if there is a key.

        Raises `InvalidDeletion` if there is a key and no secret.
        """
        if self.key is None:
            return request
        if self.secret is None:
            raise InvalidDeletion("a signed request names its federation by the secret; give its file with --secret")
        expires = now + timedelta(days=days)
        return sign_request(request, self.key, self.secret.federation_id, issued=now, expires=expires)

    def sign_again(self, request: DeletionRequest, lost: Sequence[bytes], now: datetime) -> DeletionRequest | None:
        """Return the request signed as it was before a ledger lost it, by the receipts that sites have given back.

        Sites know it by its digest, and answer as they did. Returns None if there is nothing to go by. Raises
        `DeletionExists` if sites have carried out something else under its id.
        """
        if self.key is None or self.secret is None:
            return None
        dates = set()
        for receipt in (Receipt.of(read_envelope(data)) for data in lost):
            # Whoever serves the receipts is not believed: nobody signs for longer, or for later, than was asked.
            if receipt.asked and receipt.asked[0] <= now and receipt.asked[1] - receipt.asked[0] <= _LONGEST:
                dates.add((receipt.request, *receipt.asked))
        for digest, issued, expires in dates:
            signed = sign_request(request, self.key, self.secret.federation_id, issued=issued, expires=expires)
            if OpenedRequest.of(signed).digest == digest:
                return signed
        if dates:
            raise DeletionExists(
                f"sites have answered another request under the id {request.request_id!r}; choose another id"
            )
        return None


def split(request: DeletionRequest) -> list[DeletionRequest]:
    """Return requests for the same, none of them for more than `MAXIMUM_REFERENCES` records.

    Of several, the ids are that of the request with a dot and a number; the same request always makes the same ones.
    """
    target: Target = request.target
    if not isinstance(target, Records) or len(target.references) <= MAXIMUM_REFERENCES:
        return [request]
    references = sorted(target.references)
    starts = range(0, len(references), MAXIMUM_REFERENCES)
    return [
        DeletionRequest(
            f"{request.request_id}.{number}",
            request.requester,
            Records(frozenset(references[start : start + MAXIMUM_REFERENCES]), target.site),
        )
        for number, start in enumerate(starts, 1)
    ]


def together(request: DeletionRequest, statuses: list[RequestStatus]) -> RequestStatus:
    """Return the status of a request by those of what it was split into: every site's part in each of them."""
    if len(statuses) == 1:
        return statuses[0]
    open_states = {status.state for status in statuses if status.outcome is Outcome.PENDING}
    sites = tuple(progress for status in statuses for progress in status.sites)
    whole = RequestState.of([progress.state for progress in sites])
    late = RequestState.OVERDUE in open_states
    renewals = [status.renew_by for status in statuses if status.renewal_owed and status.renew_by is not None]
    answered = RequestState.ERASED if renewals and whole is RequestState.COMPLETED else None
    return RequestStatus(
        request,
        min(status.submitted_at for status in statuses),
        sites,
        (RequestState.OVERDUE if late else RequestState.DISPATCHED) if open_states else answered,
        min((status.due_at for status in statuses if status.due_at is not None), default=None),
        renew_by=max(renewals, default=None),
    )
