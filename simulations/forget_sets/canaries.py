"""Records with a wrong label, planted before training: a model that repeats it has learned it from that record only.

Carlini et al. 2019, "The Secret Sharer", arXiv 1802.08232, has the idea; wrong labels are used against unlearning by
Goel et al. 2022, "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.case import Rows
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import draw_random
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet


class Canaries(ForgetSet):
    """Random records, all with a wrong label. No honest record is forgotten, so attacks have nothing to score."""

    name = "canaries"
    title = "records with wrong labels"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw records and give them wrong labels; they are forgotten in one deletion."""
        rows = draw_random(hospitals, share, seed)
        return Drawn([mislabelled(hospital, rows, seed) for hospital in hospitals], [rows], rows)


def mislabelled(hospital: Hospital, canaries: Rows, seed: int) -> Hospital:
    """Return a hospital whose canaries have another label, drawn uniformly from the other classes."""
    records, rows = hospital.given.records, canaries[hospital.name]
    generator = np.random.default_rng(derive_seed(seed, "wrong labels", hospital.name))
    labels = records.labels.copy()
    labels[rows] = (labels[rows] + generator.integers(1, records.num_classes, len(rows))) % records.num_classes
    return replace(hospital, given=replace(hospital.given, records=replace(records, labels=labels)))
