"""RMIA: with few shadows the strongest attack that only asks for answers.

Zarifzadeh et al. 2024, "Low-Cost High-Power Membership Inference Attacks", arXiv 2312.03262, equation 2: is a record
more likely under the attacked federation, as measured by what it is worth elsewhere, than records that were not there?
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.simulations.attacks.asking import join, log_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.attacks.candidates import candidates
from fedmunkey.simulations.federation.case import Case

_SAME = 1e-9
"""Log-likelihoods that differ by less are equal."""


class RelativeLikelihood(Attack):
    """Compare each record's likelihood, relative to that under all shadows, with that of each held-out candidate."""

    name = "relative-likelihood"
    title = "relative likelihood (RMIA)"
    question = "Is the federation more surprisingly sure of forgotten records than of records that it never saw?"
    paper = "Zarifzadeh et al. 2024, arXiv 2312.03262"
    shadows = True

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the share of held-out candidates, other than itself, that a record beats.

        Half of the shadows have learned from each candidate, so their mean is its likelihood in general. A federation
        before deletion is compared with shadows before theirs, any other with shadows that have forgotten.
        """
        asked = candidates(case)
        states = [shadow.trained if target.state is target.before else shadow.deleted for shadow in shadows]
        relative, inside = [], []
        for hospital in case.hospitals:
            name, rows = hospital.name, asked.rows(hospital.name)
            if not len(rows):
                continue
            records = hospital.given.select(rows)
            here = log_confidence(target.state.answer(name, records), records)
            general = np.mean([np.exp(log_confidence(one.answer(name, records), records)) for one in states], axis=0)
            relative.append(here - np.log(np.maximum(general, np.finfo(np.float32).tiny)))
            inside.append(np.isin(rows, asked.members[name]))
        members = np.concatenate([np.empty(0, dtype=np.bool_), *inside])
        ratios = join(relative)
        return Scores(beaten(ratios[members], ratios[~members]), _beaten_by_each_other(ratios[~members]))


def beaten(mine: NDArray[np.float64], population: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each of n relative log-likelihoods the share of a population's that are smaller; equals count half.

    The authors' gamma is 1, which they find as good as any up to 4.
    """
    if not len(population):
        return np.empty(0)
    ahead = mine[:, None] - population[None, :]
    return np.asarray(np.where(np.abs(ahead) < _SAME, 0.5, ahead > 0).mean(1))


def _beaten_by_each_other(population: NDArray[np.float64]) -> NDArray[np.float64]:
    return join([beaten(population[row : row + 1], np.delete(population, row)) for row in range(len(population))])
