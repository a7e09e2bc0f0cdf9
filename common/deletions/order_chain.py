"""A digest over a site's orders, by which site and ledger see that the same numbers stand for the same requests."""

from __future__ import annotations

import hashlib

CHAIN_BYTES = 32


def extend_chain(chain: bytes, number: int, request: bytes) -> bytes:
    """Return the chain up to an order, from that up to the one before and the digest of the order's request.

    That before the first order is empty.
    """
    return hashlib.sha256(chain + number.to_bytes(8, "big") + request).digest()
