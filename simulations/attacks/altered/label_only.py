"""What labels alone tell, without any probability.

Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks", arXiv 2007.14321, the data augmentation attack:
a record that was learned from keeps its label under more changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.altered.alterations import altered
from fedmunkey.simulations.attacks.asking import honest_records, join
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded


class LabelOnly(Attack):
    """Count how many of the record and its changed copies get its label."""

    name = "label-only"
    title = "labels alone"
    question = "Knowing answers without probabilities, do forgotten records keep their label under more changes?"
    paper = "Choquette-Choo et al. 2021, arXiv 2007.14321"
    thorough = True

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the share of right answers."""
        del shadows
        views, members = altered(case), honest_records(case)
        others = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in members}
        return Scores(
            _right(target.state, [members, *views.members.values()]),
            _right(target.state, [others, *views.others.values()]),
        )


def _right(answers: Answers, views: Sequence[Mapping[str, Encoded]]) -> NDArray[np.float64]:
    found = [
        join([_hits(answers.answer(site, some).argmax(1).numpy(), some) for site, some in sites.items()])
        for sites in views
    ]
    return np.asarray(np.mean(found, axis=0))


def _hits(said: NDArray[np.int64], some: Encoded) -> NDArray[np.float64]:
    return np.asarray(said == some.records.labels, dtype=np.float64)
