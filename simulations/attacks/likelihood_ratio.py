"""The strongest attack that only asks for answers: LiRA, and against unlearning U-LiRA.

Carlini et al. 2022, "Membership Inference Attacks From First Principles", arXiv 2112.03570, algorithm 1, and Hayes et
al. 2024, "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy", arXiv 2403.01218: the
attacker trains federations of his own, lets them forget as the attacked one has, and looks how the answer about a
record differs between those that learned from it and those that did not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.attacks.asking import join, logit_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.attacks.candidates import candidates
from fedmunkey.simulations.attacks.shadows import FEWEST_SHADOWS
from fedmunkey.simulations.federation.case import Case

_ENOUGH_SHADOWS = 64
"""With fewer, a variance of each record's own is worse than one for all (Carlini et al. 2022)."""

_LEAST_VARIANCE = 1e-12


class LikelihoodRatio(Attack):
    """Compare each record's answer with what shadow federations say that did and did not learn from it.

    The shadows must be those of `simulations.attacks.shadows`, trained for the same case. A federation before deletion
    is compared with shadows before theirs, any other with shadows that have forgotten.
    """

    name = "likelihood-ratio"
    title = "likelihood ratio (U-LiRA)"
    question = "Knowing how federations answer that forgot a record or never saw it, which of the two is this?"
    paper = "Carlini et al. 2022, arXiv 2112.03570; Hayes et al. 2024, arXiv 2403.01218"
    shadows = True

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the log-likelihood ratio; others are the held-out candidates.

        Raises `InvalidSetting` if there are too few shadows to estimate anything.
        """
        asked = candidates(case)
        states = [shadow.trained if target.state is target.before else shadow.deleted for shadow in shadows]
        observed, shadowed, inside, is_member = [], [], [], []
        for hospital in case.hospitals:
            name, rows = hospital.name, asked.rows(hospital.name)
            if not len(rows):
                continue
            records = hospital.given.select(rows)
            observed.append(logit_confidence(target.state.answer(name, records), records))
            shadowed.append([logit_confidence(state.answer(name, records), records) for state in states])
            inside.append([np.isin(records.records.record_ids, list(shadow.members[name])) for shadow in shadows])
            is_member.append(np.isin(rows, asked.members[name]))
        if not observed:
            return Scores(join([]), join([]))
        ratios = log_likelihood_ratios(
            np.concatenate(observed), np.concatenate(shadowed, axis=-1), np.concatenate(inside, axis=-1)
        )
        members = np.concatenate(is_member)
        return Scores(ratios[members], ratios[~members])


def log_likelihood_ratios(
    observed: NDArray[np.float64], shadowed: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return log N(observed; in) - log N(observed; out) of each record (Carlini et al. 2022, algorithm 1).

    Raises `InvalidSetting` if there are fewer than `FEWEST_SHADOWS`, or a record is in fewer than two of them, or out
    of fewer than two.

    Parameters
    ----------
    observed : ndarray
        (n,) logit-scaled confidences of the attacked federation.
    shadowed : ndarray
        (s, n), the same of the shadows.
    inside : ndarray
        (s, n), whether a shadow learned from a record. With fewer than `_ENOUGH_SHADOWS` shadows all records share two
        variances, in and out, pooled over their deviations from each record's own means.
    """
    if len(shadowed) < FEWEST_SHADOWS or min(inside.sum(0).min(), (~inside).sum(0).min()) < 2:
        raise InvalidSetting(
            f"{len(shadowed)} shadows are too few: two must have learned from each record and two not; "
            f"train {FEWEST_SHADOWS} or more"
        )
    return _log_normal(observed, shadowed, inside) - _log_normal(observed, shadowed, ~inside)


def _log_normal(
    observed: NDArray[np.float64], shadowed: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the log-density, up to a constant, of a Gaussian fitted to the chosen shadows of each record."""
    count = chosen.sum(0)
    mean = np.where(chosen, shadowed, 0).sum(0) / count
    squares = np.where(chosen, (shadowed - mean) ** 2, 0).sum(0)
    own = len(shadowed) >= _ENOUGH_SHADOWS
    variance = squares / (count - 1) if own else np.full(len(observed), squares.sum() / (count - 1).sum())
    variance = np.maximum(variance, _LEAST_VARIANCE)
    return np.asarray(-0.5 * ((observed - mean) ** 2 / variance + np.log(variance)))
