"""Records drawn at random: what most papers forget, and the easiest to forget."""

from __future__ import annotations

from collections.abc import Sequence

from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import draw_random, nothing
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet


class RandomRecords(ForgetSet):
    """A share of each hospital's training records, uniformly."""

    name = "random"
    title = "random records"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw records, forgotten in one deletion."""
        return Drawn(hospitals, [draw_random(hospitals, share, seed)], nothing(hospitals))
