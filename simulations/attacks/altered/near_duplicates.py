"""Whether a federation knows what looks almost like a forgotten record.

"The Unseen Threat: Residual Knowledge in Machine Unlearning under Perturbed Samples", arXiv 2601.22359: a model that
answers about forgotten records as a retrained one does may still know their slightly changed copies. So it does where
a site deletes a record and keeps a copy that was mirrored or saved anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.altered.alterations import altered
from fedmunkey.simulations.attacks.asking import join, label_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

_SMALLEST = float(np.finfo(np.float32).tiny)


class NearDuplicates(Attack):
    """The loss threshold, asked of images with noise, shifted, mirrored and recompressed."""

    name = "near-duplicates"
    title = "near duplicates"
    question = "Is the federation surer of slightly changed copies of forgotten records than of changed test records?"
    paper = "Residual knowledge under perturbed samples, arXiv 2601.22359"
    asked = "Asked about slightly changed copies, the federation"
    holds = "Near duplicates are as unknown as to the oracle"
    thorough = True

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the logarithm of the label's mean probability over all alterations.

        The mean of logarithms would be that of the copies which nobody knows, however well one of them is known.
        """
        del shadows
        views = altered(case)
        return Scores(_mean(target.state, views.members), _mean(target.state, views.others))


def _mean(answers: Answers, views: Mapping[str, Mapping[str, Encoded]]) -> NDArray[np.float64]:
    found = [
        join([label_confidence(answers.answer(site, some), some) for site, some in sites.items()])
        for sites in views.values()
    ]
    return np.asarray(np.log(np.maximum(np.mean(found, axis=0), _SMALLEST)))
