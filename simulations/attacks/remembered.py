"""What a federation said once, kept without the federation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.hospitals import Encoded


@dataclass(frozen=True)
class Remembered:
    """A federation's answers about some records: all that an attack needs of a shadow, and small enough to send around.

    `places` has the row of the answer for each hospital and record id; `full` and `weights` are (n, num_classes)
    probabilities with and without banks.
    """

    sites: frozenset[str]
    places: Mapping[tuple[str, str], int]
    full: Tensor
    weights: Tensor

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return what the hospital said; KeyError for records that it was not asked about."""
        return self.full[self._rows(site, records)]

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return what the shared weights said; KeyError for records that they were not asked about."""
        return self.weights[self._rows(site, records)]

    def _rows(self, site: str, records: Encoded) -> list[int]:
        return [self.places[site, record] for record in records.records.record_ids.tolist()]


def remember(answers: Answers, asked: Mapping[str, Encoded]) -> Remembered:
    """Ask each hospital about records, by its name, and keep what it says."""
    names = [(site, record) for site, records in asked.items() for record in records.records.record_ids.tolist()]
    return Remembered(
        answers.sites,
        {name: row for row, name in enumerate(names)},
        torch.cat([answers.answer(site, records) for site, records in asked.items()]),
        torch.cat([answers.weights_alone(site, records) for site, records in asked.items()]),
    )
