"""What the log says about receipts of keys that have ended: whoever holds such a key can write any date on a receipt.

A receipt's place in the log lies between two times that its signer does not choose. It is later than what stands before
it, its request among that, and earlier than any signed head that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from fedmunkey.common.errors import InvalidProof
from fedmunkey.common.proofs.signing.statements import write_time
from fedmunkey.common.proofs.trusted_keys import TrustedKey


class Logged(NamedTuple):
    """A leaf of the log: its number, the date that it bears, the keys that signed it, and when a head first held it."""

    number: int
    time: datetime
    signers: tuple[TrustedKey, ...]
    held: datetime


def is_in_time(leaf: Logged, others: Iterable[Logged]) -> bool:
    """Return whether the log shows that a leaf was in it before its signers' keys ended.

    `others` are leaves of the same log. Raises `InvalidProof` if these show that it came after.
    """
    ends = [signer.end for signer in leaf.signers if signer.end is not None]
    if not ends:
        return True
    end = min(ends)
    for other in others:
        # The date of one whose key has ended as well says nothing.
        dated = all(signer.end is None for signer in other.signers)
        if dated and other.number < leaf.number and other.time >= end:
            (name,) = {signer.name for signer in leaf.signers}
            raise InvalidProof(
                f"a receipt of {name} is dated back: it bears {write_time(leaf.time)}, its key ended on "
                f"{write_time(end)}, and what stands before it in the log is of {write_time(other.time)}"
            )
    return leaf.held < end
