"""Random records that leave one after the other, as requests arrive in life: small errors may add up."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import draw_random, nothing, shuffled_parts
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet

_DELETIONS = 10


class TenDeletions(ForgetSet):
    """The records of `RandomRecords`, in ten deletions whose sizes differ by one at most."""

    name = "sequence"
    title = "ten deletions, one after the other"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw records and the order in which they leave."""
        rows = draw_random(hospitals, share, seed)
        total = sum(map(len, rows.values()))
        if total < _DELETIONS:
            raise InvalidDeletion(
                f"{share:.3g} of the records is {total}, too few for {_DELETIONS} deletions; forget a larger share"
            )
        sizes = [(total + place) // _DELETIONS for place in range(_DELETIONS)]
        return Drawn(hospitals, shuffled_parts(rows, sizes, derive_seed(seed, "order")), nothing(hospitals))
