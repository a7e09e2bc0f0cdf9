"""Random records that leave one after the other, as requests arrive in life: small errors may add up."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import draw_random, nothing, shuffled_parts
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet


class ManyDeletions(ForgetSet):
    """The records of `RandomRecords`, in so many deletions whose sizes differ by one at most."""

    def __init__(self, name: str, count: int, in_words: str) -> None:
        self.name = name
        self.title = f"{in_words} deletions, one after the other"
        self._count = count

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw records and the order in which they leave."""
        rows = draw_random(hospitals, share, seed)
        total = sum(map(len, rows.values()))
        if total < self._count:
            raise InvalidDeletion(
                f"{share:.3g} of the records is {total}, too few for {self._count} deletions; forget a larger share"
            )
        sizes = [(total + place) // self._count for place in range(self._count)]
        return Drawn(hospitals, shuffled_parts(rows, sizes, derive_seed(seed, "order")), nothing(hospitals))
