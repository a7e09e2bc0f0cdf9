"""A certificate as one page that people can read: HTML without anything from elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.proofs.verification import verify_certificate


def certificate_page(data: bytes, keys: TrustedKeys) -> str:
    """Return the page of a certificate, after checking it.

    Raises
    ------
    InvalidProof
        If the certificate does not hold: there is no page of one that does not.
    """
    verified = verify_certificate(data, keys)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    return templates.get_template("certificate.html").render(
        about=certificate_words.document(verified, keys),
        asked=certificate_words.asked_for(verified),
        digest=hashlib.sha256(data).hexdigest(),
    )
