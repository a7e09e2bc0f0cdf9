"""Random records with some canaries among them: one federation answers for both."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.canaries import mislabelled
from fedmunkey.simulations.forget_sets.drawing import draw_random, shuffled_parts
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet

_CANARIES = 0.2
_FEWEST_CANARIES = 2


class RandomWithCanaries(ForgetSet):
    """The records of `RandomRecords`, of which a fifth of all hospitals' together, two at least, have a wrong label."""

    name = "random+canaries"
    title = "random records, some with wrong labels"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw records and make some canaries; all are forgotten in one deletion."""
        rows = draw_random(hospitals, share, seed)
        total = sum(map(len, rows.values()))
        count = max(_FEWEST_CANARIES, round(_CANARIES * total))
        if count >= total:
            raise InvalidDeletion(
                f"{share:.3g} of the records is {total}, too few for {count} canaries and honest records beside them; "
                "forget a larger share"
            )
        canaries, _ = shuffled_parts(rows, [count, total - count], derive_seed(seed, "canaries"))
        return Drawn([mislabelled(hospital, canaries, seed) for hospital in hospitals], [rows], canaries)
