"""Whoever may ask before and after can try to tell who has left.

Chen et al. 2021, "When Machine Unlearning Jeopardizes Privacy", arXiv 2005.02205: the difference of two models' answers
gives away what was deleted between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.asking import honest_records, join, label_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

_MOST_RETAINED = 500
"""Of each hospital."""


class Differencing(Attack):
    """Tell records that have left from records that stay by how much surer the federation was of them before.

    A federation that truly revokes access cannot hide this from someone who may ask it before and after: what a
    retrained oracle has lost of a record is to be seen in the same way. So it is reported, and not judged.
    """

    name = "differencing"
    title = "before/after differencing"
    question = "Can someone who asks before and after tell who left from who stayed?"
    paper = "Chen et al. 2021, arXiv 2005.02205"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the drop in the label's probability; others are records that stay, at any hospital."""
        del shadows

        def drop(site: str, records: Encoded) -> NDArray[np.float64]:
            before, after = (
                label_confidence(state.answer(site, records), records) for state in (target.before, target.state)
            )
            return before - after

        members = [drop(name, records) for name, records in honest_records(case).items()]
        others = [drop(name, _sample(records)) for name, records in case.retained().items() if len(records.records)]
        return Scores(join(members), join(others))


def _sample(records: Encoded) -> Encoded:
    """Return records at even distances, `_MOST_RETAINED` at most: the same for every state that is compared."""
    step = max(1, math.ceil(len(records.records) / _MOST_RETAINED))
    return records.select(np.arange(0, len(records.records), step))
