"""What shows that a request was carried out: its certificate, fetched, held against the trusted keys, and as a page."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.certificate import Certificate
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.certificate_pdf import certificate_pdf
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import Verified, verify_certificate
from fedmunkey.common.service.deletion_service import DeletionService


@dataclass(frozen=True)
class Evidence:
    """A certificate's file, and what it proves to somebody who trusts the keys; None where none were given."""

    data: bytes = field(repr=False)
    certificate: Certificate
    verified: Verified | None
    keys: TrustedKeys | None

    def page(self) -> str:
        """Return it as a page for people; raises `InvalidProof` if no keys were given."""
        if self.keys is None:
            raise InvalidProof(
                "a page is written only of a certificate that was checked; name the trusted keys with --keys"
            )
        return certificate_page(self.data, self.keys)

    def pdf(self) -> bytes:
        """Return it as a PDF with the file attached; raises as `certificate_pdf`, and as `page` without keys."""
        if self.keys is None:
            raise InvalidProof(
                "a PDF is written only of a certificate that was checked; name the trusted keys with --keys"
            )
        return certificate_pdf(self.data, self.keys)


def fetch_evidence(service: DeletionService, request_id: str, keys: TrustedKeys | None) -> Evidence:
    """Return a request's certificate, checked where keys are given.

    Raises `InvalidProof` if it does not hold or is another request's, `InvalidDeletion` as `DeletionService`.
    """
    data = service.certificate(request_id)
    made = Certificate.from_bytes(data)
    verified = None if keys is None else verify_certificate(data, keys)
    if verified is not None and verified.terms.request_id != request_id:
        raise InvalidProof(f"the service sent the certificate of another request than {request_id!r}")
    return Evidence(data, made, verified, keys)
