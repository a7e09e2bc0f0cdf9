"""Closed-form federated learning without a memory: one round of sums, and the same answer at every hospital.

Fani et al. 2024, "Accelerating Heterogeneous Federated Learning with Closed-form Classifiers", ICML, arXiv 2406.01116,
solve so once; here sums are taken anew after deletions, and the ridge is chosen as `exact` chooses its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.solved_federation import SolvedFederation, solve_records
from fedmunkey.simulations.unlearning.method import AfterRound, Budget, Family, Forgotten, Method, SiteRecords
from fedmunkey.simulations.unlearning.munkey import SolvedFamily


@dataclass(frozen=True)
class ClosedFormFederation:
    """Weights that are solved for, and nothing beside them."""

    solved: SolvedFederation

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals with records."""
        return self.solved.sites

    @property
    def sent_bytes(self) -> int:
        """What one round sends, as under `exact`."""
        return self.solved.sent_bytes

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities of the shared weights."""
        return self.solved.weights_alone(site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return what `answer` does."""
        return self.answer(site, records)

    def same_bytes(self, other: ClosedFormFederation) -> bool:
        """Compare the shared weights byte by byte."""
        return self.solved.release.digest() == other.solved.release.digest()

    def forget(self, gone: Mapping[str, frozenset[str]]) -> ClosedFormFederation:
        """Return the federation that is solved from the other records."""
        return ClosedFormFederation(self.solved.forget(gone))


class ClosedFormFamily(Family[ClosedFormFederation]):
    """The shared weights of `exact` by themselves."""

    name = "closed-form"
    choices = SolvedFamily.choices
    forgets_by_design = True

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> ClosedFormFederation:
        """Solve for the weights; `after_round` is called once."""
        solved = solve_records(records, settings.replace(guarantee=Guarantee.EXACT.value), shape)
        federation = ClosedFormFederation(solved)
        if after_round is not None:
            after_round(1, federation)
        return federation


class ClosedForm(Method[ClosedFormFederation]):
    """Take the sums over what is left, and solve again."""

    name = "closed-form"
    title = "closed form without memory"
    paper = "Fani et al. 2024, arXiv 2406.01116"
    family = ClosedFormFamily()
    needs_data = False
    retrains = False

    def forget(self, trained: ClosedFormFederation, case: Case, budget: Budget) -> Forgotten:
        """Solve anew; sums stand for the records, so no image is needed again."""
        del budget
        gone = {name: frozenset(some.records.record_ids.tolist()) for name, some in case.forget_records().items()}
        left = trained.forget(gone)
        return Forgotten(left, left.sent_bytes)
