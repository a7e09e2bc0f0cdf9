"""The records that a model can only know by heart: the hardest to forget.

Feldman and Zhang 2020, "What Neural Networks Memorize and Why", arXiv 2008.03703: a record's memorisation is
how much surer of its label models are that were trained on it than models that were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.common.model.metrics import confidence
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import amounts, is_train, is_withdrawable, nothing
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily

_DIVISIONS = 2
_PARTS = 3
"""A federation learns from all parts but one. The paper draws 70% each time; with parts, as few as six federations have
each record in four of them and out of two, where drawing would leave some in all."""


class MostMemorised(ForgetSet):
    """At each hospital the records that a plain vision transformer memorises most.

    The plain federations are trained with the settings and shape of the federation that is audited.
    """

    name = "memorised"
    title = "most memorised records"

    def __init__(self, settings: Settings, shape: ModelShape) -> None:
        self._settings = settings
        self._shape = shape

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Train federations to find the most memorised records, forgotten in one deletion."""
        asked = amounts(hospitals, share)
        memorised = memorisation(hospitals, self._settings, self._shape, seed)
        rows = {}
        for hospital in hospitals:
            may_go = np.flatnonzero(is_withdrawable(hospital))
            order = np.argsort(-memorised[hospital.name][may_go], kind="stable")
            rows[hospital.name] = np.sort(may_go[order[: asked[hospital.name]]])
        return Drawn(hospitals, [rows], nothing(hospitals))


def memorisation(
    hospitals: Sequence[Hospital], settings: Settings, shape: ModelShape, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return how much each training record is memorised, from -1 to 1; NaN for held-out records.

    The mean probability of the label in federations that learned from a record, less that in those that did not, whole
    parts of the records being left out together: Feldman and Zhang's estimator, with the probability of the label in
    place of whether it is the answer, so that a few models tell records apart.

    `_DIVISIONS * _PARTS` plain federations are trained, each with a seed of its own.
    """
    sums = {hospital.name: np.zeros((2, len(hospital.given.records))) for hospital in hospitals}
    for division in range(_DIVISIONS):
        parts = {hospital.name: _divide(hospital, derive_seed(seed, "parts", division)) for hospital in hospitals}
        for part in range(_PARTS):
            learned = {h.name: is_train(h) & (parts[h.name] != part) for h in hospitals}
            varied = settings.replace(seed=derive_seed(seed, "memorisation", division, part) % 2**31)
            records = {h.name: h.given.select(learned[h.name]) for h in hospitals}
            federation = PlainFamily().train(records, varied, shape)
            for hospital in hospitals:
                labels = torch.from_numpy(hospital.given.records.labels)
                sure = confidence(federation.answer(hospital.name, hospital.given), labels)
                sums[hospital.name] += np.where([learned[hospital.name], ~learned[hospital.name]], sure, 0)
    counts = np.array([[_DIVISIONS * (_PARTS - 1)], [_DIVISIONS]])
    means = {name: some / counts for name, some in sums.items()}
    return {h.name: np.where(is_train(h), means[h.name][0] - means[h.name][1], np.nan) for h in hospitals}


def _divide(hospital: Hospital, seed: int) -> NDArray[np.int64]:
    """Return in which part each record is."""
    generator = np.random.default_rng(derive_seed(seed, hospital.name))
    parts = np.zeros(len(hospital.given.records), dtype=np.int64)
    train = np.flatnonzero(is_train(hospital))
    parts[generator.permutation(train)] = np.arange(len(train)) % _PARTS
    return parts
