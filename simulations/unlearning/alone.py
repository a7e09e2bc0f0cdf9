"""Hospitals that share nothing: each trains a MUNKEY model by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Answers, common_answers
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.method import AfterRound, Family, SiteRecords
from fedmunkey.simulations.unlearning.munkey import munkey_family


@dataclass(frozen=True)
class AloneHospitals:
    """A federation of one for each hospital, by name."""

    each: Mapping[str, Answers]

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals whose bank holds something."""
        return frozenset().union(*(one.sites for one in self.each.values()))

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities of a hospital's own model and bank."""
        return self.each[site].answer(site, records)

    def common(self, site: str, records: Encoded) -> Tensor:
        """Ask a hospital's own model for the case mix that it has learned."""
        return common_answers(self.each[site], site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Ask a hospital's own model with null memory."""
        return self.each[site].weights_alone(site, records)


class AloneFamily(Family[AloneHospitals]):
    """MUNKEY without a federation, for as many rounds."""

    name = "munkey-alone"

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> AloneHospitals:
        """Train one hospital after the other; `after_round` is called once, as if after the last round."""
        family = munkey_family(settings.guarantee)
        alone = AloneHospitals({name: family.train({name: some}, settings, shape) for name, some in records.items()})
        if after_round is not None:
            after_round(settings.rounds, alone)
        return alone
