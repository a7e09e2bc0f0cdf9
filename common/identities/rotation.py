"""How one identity takes the place of another, so that an interruption at any moment leaves one that works.

The new pair lies in `next/` until it is whole. Then its key takes the place of the old one, and its certificate
follows; between these two steps `Identity.read` finds a key whose certificate is still in `next/`, and moves it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.failpoints import Failpoint, hit
from fedmunkey.common.identities.identity import (
    CERTIFICATE_FILE,
    KEY_FILE,
    NEXT_FOLDER,
    Identity,
    certificate_pem,
    finish_rotation,
)
from fedmunkey.common.identities.member_keys import make_key
from fedmunkey.common.private_files import replace_file, sync_folder


def stage_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Make the key of the next identity, or take the one that an interrupted rotation has left."""
    waiting = folder / NEXT_FOLDER
    waiting.mkdir(mode=0o700, exist_ok=True)
    return make_key(waiting / KEY_FILE)


def take_over(folder: Path, certificate: x509.Certificate) -> Identity:
    """Put the staged key, with its certificate, in the place of the present pair, and return the identity.

    Raises `InvalidIdentity` if the certificate is not that of the staged key.
    """
    waiting = folder / NEXT_FOLDER
    if make_key(waiting / KEY_FILE).public_key() != certificate.public_key():
        raise InvalidIdentity("the service sent a certificate of another key; the identity stays as it is")
    # Otherwise the certificate of a key that is in place already would be lost.
    finish_rotation(folder)
    replace_file(waiting / CERTIFICATE_FILE, certificate_pem(certificate))
    hit(Failpoint.ROTATE_STAGED)
    (waiting / KEY_FILE).replace(folder / KEY_FILE)
    sync_folder(folder)
    hit(Failpoint.ROTATE_KEY_MOVED)
    # Somebody who read the identity meanwhile may have taken this step.
    with suppress(FileNotFoundError):
        (waiting / CERTIFICATE_FILE).replace(folder / CERTIFICATE_FILE)
    sync_folder(folder)
    with suppress(OSError):
        waiting.rmdir()
    return Identity.read(folder)
