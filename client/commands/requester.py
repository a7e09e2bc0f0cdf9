"""Who asks, and its signature under what it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fedmunkey.common.deletion import DeletionRequest
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.references import FederationSecret
from fedmunkey.common.signed_requests import sign_request
from fedmunkey.common.signing.keys import SigningKey

DEFAULT_DAYS = 90.0


@dataclass(frozen=True)
class Requester:
    """Somebody who asks for deletions.

    Attributes
    ----------
    name : str
        The data-protection officer or a site.
    key : SigningKey or None
        Signs its requests; None leaves them unsigned, which only sites without trusted keys carry out.
    secret : FederationSecret or None
        Names the federation in what is signed.
    """

    name: str
    key: SigningKey | None = None
    secret: FederationSecret | None = field(default=None, repr=False)

    def sign(self, request: DeletionRequest, now: datetime, days: float) -> DeletionRequest:
        """Return the request with a signature that is good for some days, if there is a key.

        Raises
        ------
        InvalidDeletion
            If there is a key and no secret.
        """
        if self.key is None:
            return request
        if self.secret is None:
            raise InvalidDeletion("a signed request names its federation by the secret; give its file with --secret")
        expires = now + timedelta(days=days)
        return sign_request(request, self.key, self.secret.federation_id, issued=now, expires=expires)
