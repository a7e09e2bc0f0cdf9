"""What the coordinator shows to browsers, and whose certificates it takes."""

from __future__ import annotations

import logging
import ssl
import threading
from typing import Any

from fedmunkey.common.errors import InvalidIdentity
from fedmunkey.common.identities import Identity

_log = logging.getLogger(__name__)


def members_encryption(identity: Identity) -> ssl.SSLContext:
    """Return encryption that takes only those who show a certificate of the federation's authority.

    It follows the files of the coordinator's identity, so that a renewal needs no restart.
    """
    lock = threading.Lock()
    first = _context(identity)
    shown, seen = first, _written(identity)

    def follow(connection: Any, _name: str | None, _context_of: ssl.SSLContext) -> None:
        """Have a handshake go on with what the files say."""
        nonlocal shown, seen
        with lock:
            if (written := _written(identity)) != seen:
                try:
                    shown = _context(Identity.read(identity.folder))
                    seen = written
                except InvalidIdentity as error:
                    _log.warning("%s", error)
            connection.context = shown

    first.sni_callback = follow
    return first


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=identity.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


def _written(identity: Identity) -> int:
    try:
        return identity.certificate_file.stat().st_mtime_ns
    except OSError:
        return 0
