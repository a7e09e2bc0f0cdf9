"""Which split a record without one is for: a function of its subject alone.

No subject is in two splits, at whichever of the federation's hospitals, and neither a record that is imported later nor
one that is deleted moves another: `docs/decisions/0019-importing-a-hospitals-own-files.md`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidInput


@dataclass(frozen=True)
class SplitRule:
    """How subjects are divided: shares of them are held out, other ones with another seed."""

    seed: int = 0
    val: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        """Check that something is left to train on; raises `InvalidInput`."""
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise InvalidInput(
                f"--val-share {self.val:g} and --test-share {self.test:g} leave no record to train on; choose less"
            )

    def split_of(self, subject: bytes) -> Split:
        """Return the split of a subject's records, given the subject's reference."""
        digest = hashlib.sha256(f"fedmunkey split {self.seed} ".encode() + subject).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.test:
            return Split.TEST
        return Split.VAL if place < self.test + self.val else Split.TRAIN
