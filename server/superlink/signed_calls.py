"""Whose call it is, by headers alone: each call of a SuperNode bears its key, the time, and a signature of the time.

The same that Flower checks once it has read the whole of a call; here it is known before.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

_LONGEST = 1024
"""Characters of a header; keys of P-384 take some 300."""


def find_signer(headers: Mapping[str, str], sites: Mapping[bytes, str], clock: Callable[[], datetime]) -> str | None:
    """Return the site that has signed a call's headers just now, or None if none of `sites`, by public key, has.

    Header names are in small letters.
    """
    texts = [headers.get(name, "") for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER)]
    time = headers.get(TIMESTAMP_HEADER, "")
    if any(len(text) > _LONGEST for text in (*texts, time)):
        return None
    try:
        key, signature = (b64decode(text, validate=True) for text in texts)
        # Known keys only: for others not even the signature is looked at.
        if (site := sites.get(key)) is None:
            return None
        age = (clock() - datetime.fromisoformat(time)).total_seconds()
        fresh = -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
        good = fresh and verify_signature(bytes_to_public_key(key), time.encode("ascii"), signature)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return None
    return site if good else None
