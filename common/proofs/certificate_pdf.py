"""A certificate as a PDF: its page for people, tagged for screen readers, with the certificate's file attached."""

from __future__ import annotations

import logging

from fedmunkey.common.errors import InvalidSetting, brought_by
from fedmunkey.common.proofs.certificate_page import certificate_page
from fedmunkey.common.proofs.trusted_keys import TrustedKeys

EXTRA = "pdf"
"""Of the package: it brings what makes PDFs."""

_VARIANT = "pdf/ua-1"


def certificate_pdf(data: bytes, keys: TrustedKeys, name: str = "certificate.json") -> bytes:
    """Return the PDF of a certificate, after checking it; its file is attached under a name, byte for byte.

    Raises
    ------
    InvalidProof
        If the certificate does not hold.
    NotInstalled
        If the extra is missing that makes PDFs.
    InvalidSetting
        If the system's own libraries are missing that it needs.
    """
    page = certificate_page(data, keys)
    with brought_by(EXTRA, "weasyprint, which makes PDFs,"):
        try:
            import weasyprint
        except OSError as error:
            raise InvalidSetting(
                f"no PDF can be made, for a library of the system is missing ({str(error).splitlines()[0]}); install "
                "Pango (libpango-1.0-0 and libpangoft2-1.0-0), or print the page"
            ) from None
    # It says of each property of a style that it does not know that it does not.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    attached = weasyprint.Attachment(
        string=data.decode(), name=name, description="The certificate itself, which munkey-client verify checks."
    )
    # A page of ours needs nothing from elsewhere, and nothing in one makes this machine ask for it.
    nothing = weasyprint.URLFetcher(allowed_protocols=())
    made = weasyprint.HTML(string=page, url_fetcher=nothing).write_pdf(pdf_variant=_VARIANT, attachments=[attached])
    return bytes(made)
