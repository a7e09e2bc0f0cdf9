"""SPM-C: a semi-parametric classifier, which reads the training records through the means of their classes only.

Zheng, Tai and Yeh 2026, "Designing to Forget: Deep Semi-parametric Models for Unlearning", CVPR, arXiv 2603.22870: a
prediction G(x, T) has weights and, beside them, the training set T, from which records are deleted when it is asked.
Here G compares a projection of an image's features with those of the class means, as prototypical networks do (Snell
et al. 2017, arXiv 1703.05175): no weight belongs to a class, so labels may be permuted without any weight changing,
which their training has to ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmunkey.common.closed_form.feature_map import SCALE_BITS, FeatureMap
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed, generator
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.federated_loop import LocalTraining, average_rounds
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.plain_models import falling
from fedmunkey.simulations.unlearning.method import AfterRound, Budget, Family, Forgotten, Method, SiteRecords

_FIRST_SCALE = 10.0
"""Of cosines, in the first weights."""


@dataclass(frozen=True)
class ClassSums:
    """Sums of records' whole numbers by class, (classes, size), and counts (classes,), float64: exact in any order."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def of(cls, records: Encoded, classes: int) -> ClassSums:
        """Return the sums over some records."""
        numbers, labels = read(records), torch.from_numpy(records.records.labels)
        members = F.one_hot(labels, classes).double()
        return cls(members.T @ (numbers.double() * 2.0**SCALE_BITS), members.sum(0))

    def plus(self, other: ClassSums, sign: int = 1) -> ClassSums:
        """Return these sums with others added to them or, with a sign of -1, taken from them."""
        return ClassSums(self.sums + sign * other.sums, self.counts + sign * other.counts)

    @property
    def means(self) -> Tensor:
        """(classes, size) float32; zeros for a class without any record."""
        return (self.sums / self.counts.clamp(min=1)[:, None] / 2.0**SCALE_BITS).float()


class Projection(nn.Module):
    """What is learned: a projection and the scale of cosines; nothing in it belongs to a class."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, width, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.scale = nn.Parameter(torch.tensor(_FIRST_SCALE))

    def forward(self, numbers: Tensor, means: Tensor) -> Tensor:
        """Return (B, classes) logits of (B, size) records; means are (classes, size) or, for each record, one more."""
        asked = F.normalize(self.project(numbers), dim=-1)
        against = F.normalize(self.project(means), dim=-1)
        if against.ndim == asked.ndim:
            return self.scale * asked @ against.T
        return self.scale * (against @ asked[..., None])[..., 0]


@dataclass(frozen=True)
class ClassMeansFederation:
    """Learned weights, and each hospital's sums, which are added up for all."""

    model: Projection
    sums: Mapping[str, ClassSums]

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals with records."""
        return frozenset(name for name, some in self.sums.items() if some.counts.sum())

    @property
    def means(self) -> Tensor:
        """The (classes, size) means of all hospitals together."""
        return total(self.sums).means

    @torch.inference_mode()
    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities; every hospital has the same means."""
        del site
        return self.model(read(records), self.means).softmax(1)  # type: ignore[no-any-return]

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return what `answer` does: means are shared."""
        return self.answer(site, records)

    def forget(self, gone: Mapping[str, Encoded]) -> ClassMeansFederation:
        """Return the federation whose sums no longer have some records; no weight changes."""
        left = {name: some.plus(ClassSums.of(gone[name], len(some.counts)), -1) for name, some in self.sums.items()}
        return ClassMeansFederation(self.model, left)


class ClassMeansFamily(Family[ClassMeansFederation]):
    """Federated averaging of a projection; every record is compared with means that it has no part in."""

    name = "spm-c"
    choices = ({}, {"learning-rate": 5e-4}, {"learning-rate": 5e-5}, {"width": 256, "learning-rate": 5e-5})
    forgets_by_design = True

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> ClassMeansFederation:
        """Train by federated averaging; the means are the federation's."""
        del shape
        sums = {name: ClassSums.of(some, settings.num_classes) for name, some in records.items()}
        everything = total(sums)
        local = [
            _site(name, read(some), torch.from_numpy(some.records.labels), everything, settings)
            for name, some in records.items()
            if len(some.records)
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "projection"))
            first = Projection(everything.sums.shape[1], settings.width)
        model = average_rounds(first, local, settings.descending_rounds)
        federation = ClassMeansFederation(model, sums)
        if after_round is not None:
            after_round(settings.descending_rounds, federation)
        return federation


class ClassMeans(Method[ClassMeansFederation]):
    """Take the forgotten records out of their classes' means; the projection has learned from them, and stays."""

    name = "spm-c"
    title = "SPM-C, class means"
    paper = "Zheng et al. 2026, arXiv 2603.22870"
    family = ClassMeansFamily()
    needs_data = True
    retrains = False

    def forget(self, trained: ClassMeansFederation, case: Case, budget: Budget) -> Forgotten:
        """Take the forgotten records out; each hospital sends what its sums lose, and gets the means."""
        del budget
        left = trained.forget(case.forget_records())
        return Forgotten(left, 2 * left.means.nbytes * len(trained.sites))


def read(records: Encoded) -> Tensor:
    """Return (n, size) numbers of records, of about unit length: their frozen features as `exact` reads them."""
    features = records.encoding.features
    numbers = FeatureMap((int(features.shape[1]), int(features.shape[2])), 0).read(
        records.encoding.keys.numpy(), features.numpy()
    )
    return torch.from_numpy(numbers / 2.0**SCALE_BITS).float()


def total(sums: Mapping[str, ClassSums]) -> ClassSums:
    """Return the sums of all hospitals."""
    first, *others = sums.values()
    for other in others:
        first = first.plus(other)
    return first


def _site(
    name: str, numbers: Tensor, labels: Tensor, everything: ClassSums, settings: Settings
) -> LocalTraining[Projection]:
    rest = everything.counts.clamp(min=2) - 1
    means = everything.means

    def loss(model: Projection, rows: Tensor) -> Tensor:
        """Compare records with the means, their own class's without themselves."""
        asked, own = numbers[rows], labels[rows]
        against = means.expand(len(rows), *means.shape).clone()
        without = (everything.sums[own] / 2.0**SCALE_BITS - asked.double()) / rest[own][:, None]
        against[torch.arange(len(rows)), own] = without.float()
        return F.cross_entropy(model(asked, against), own, label_smoothing=settings.label_smoothing)

    def train_locally(model: Projection, number: int) -> int:
        """Train for a round as other families do."""
        draws = generator(settings.seed, name, number)
        rate = settings.learning_rate * falling(number, settings.descending_rounds)
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=settings.weight_decay, fused=True)
        for _ in range(settings.local_epochs):
            for rows in torch.randperm(len(labels), generator=draws).split(settings.batch_size):
                optimiser.zero_grad(set_to_none=True)
                loss(model, rows).backward()
                optimiser.step()
        return len(labels)

    return train_locally
