"""Whether the federation knows better of forgotten records than of others when it is right.

A model is usually surest where it has learned, and there it is right: its answers about what it saw are better
calibrated than those about what it did not (Guo et al. 2017, "On Calibration of Modern Neural Networks",
arXiv 1706.04599). It needs no label to be unusual, and looks at all classes at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.asking import honest_records, join
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded


class Calibration(Attack):
    """Compare how far answers are from the truth, over all classes."""

    name = "calibration"
    title = "calibration"
    question = "Are answers about forgotten records nearer to the truth, over all classes, than about unseen ones?"
    paper = "Guo et al. 2017, arXiv 1706.04599; Brier 1950"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the Brier score with its sign turned (Brier 1950, Monthly Weather Review 78, equation 2)."""
        del shadows
        gone = honest_records(case)
        tests = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in gone}
        members, others = (
            join([-brier(target.state.answer(site, some), some) for site, some in records.items()])
            for records in (gone, tests)
        )
        return Scores(members, others)


def brier(probabilities: Tensor, records: Encoded) -> NDArray[np.float64]:
    """Return (n,) squared distances of (n, classes) probabilities to what is true, from 0 to 2."""
    truth = torch.nn.functional.one_hot(torch.from_numpy(records.records.labels), probabilities.shape[1])
    return np.asarray(((probabilities.double() - truth) ** 2).sum(1).numpy())
