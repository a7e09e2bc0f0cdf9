"""A whole hospital that leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import is_train, nothing
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet


class LeavingSite(ForgetSet):
    """All training records of one hospital, drawn uniformly from those that have any.

    They go whatever the consent, as a plan's `site` deletion has it, and the share is ignored.
    """

    name = "site"
    title = "a whole hospital"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw a hospital, forgotten in one deletion.

        Raises `InvalidDeletion` if fewer than two hospitals have training records, so that none would stay.
        """
        del share
        teaching = [hospital for hospital in hospitals if is_train(hospital).any()]
        if len(teaching) < 2:
            raise InvalidDeletion(
                f"{len(teaching)} hospitals have training records, and one of them cannot leave the others; "
                "divide the records among 2 hospitals or more"
            )
        place = np.random.default_rng(derive_seed(seed, "forget site")).integers(len(teaching))
        gone = teaching[place]
        rows = {**nothing(hospitals), gone.name: np.flatnonzero(is_train(gone))}
        return Drawn(hospitals, [rows], nothing(hospitals))
