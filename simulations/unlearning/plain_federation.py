"""Federated averaging of a model without a memory, from which most methods start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.settings.settings import ImagePath, Settings
from fedmunkey.simulations.federation.federated_loop import Averaged, average_rounds
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.plain_models import Examples, PlainLinear, PlainModel, PlainViT, plain_site
from fedmunkey.simulations.unlearning.method import AfterRound, Family, Method, SiteRecords

_BATCH = 512

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Round:
    """One round of federated averaging: the weights that hospitals got, and those that each sent back, by name."""

    before: Weights
    sent: Mapping[str, Weights]


@dataclass(frozen=True)
class PlainFederation:
    """A trained model, the hospitals with training records, and what the server received, for methods that need it."""

    model: PlainModel
    sites: frozenset[str]
    rounds: tuple[Round, ...] = field(default=(), repr=False)

    @torch.inference_mode()
    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities; every hospital has the same model."""
        del site
        inputs = records.inputs(self.model.shape)
        parts = [self.model(part).softmax(1) for part in inputs.split(_BATCH) if len(part)]
        return torch.cat([torch.empty(0, self.model.shape.num_classes), *parts])

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return what `answer` does: everything is in the shared weights."""
        return self.answer(site, records)


class PlainFamily(Family[PlainFederation]):
    """The transformer of MUNKEY's size, without a memory, on the same image path."""

    name = "plain-vit"
    suffix = ""
    """What the names of its methods end in."""
    title = "ViT"
    choices = ({}, {"learning-rate": 5e-4}, {"learning-rate": 5e-3}, {"label-smoothing": 0.0})

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> PlainFederation:
        """Train by federated averaging, and keep what a server receives."""
        sites = {name: some for name, some in records.items() if len(some.records)}
        rounds: list[Round] = []

        def note(averaged: Averaged[PlainModel]) -> None:
            rounds.append(Round(averaged.before, dict(zip(sites, averaged.sent, strict=True))))
            if after_round is not None:
                after_round(averaged.number, PlainFederation(averaged.model, frozenset(sites)))

        read = self.shape_of(records, shape)
        local = [plain_site(name, Examples.of(some, read), settings) for name, some in sites.items()]
        model = average_rounds(self.first(read, settings.seed), local, settings.descending_rounds, after_round=note)
        return PlainFederation(model, frozenset(sites), tuple(rounds))

    def shape_of(self, records: SiteRecords, shape: ModelShape) -> ModelShape:
        """Return the shape of the family's model, given that of the federation's."""
        del records
        return shape

    def first(self, shape: ModelShape, seed: int) -> PlainModel:
        """Return untrained weights of a seed, for a shape as `shape_of` has it."""
        return first_plain(shape, seed)


class LinearFamily(PlainFamily):
    """A linear function of the encoder's frozen features, whatever the image path: that of `exact`, descended to."""

    name = "linear"
    suffix = "-linear"
    title = "linear"

    def shape_of(self, records: SiteRecords, shape: ModelShape) -> ModelShape:
        """Return a shape that reads the features that came with the keys."""
        features = next(iter(records.values())).encoding.features
        read = (int(features.shape[1]), int(features.shape[2]))
        return replace(shape, image_path=ImagePath.FROZEN, input_shape=read, patch_size=0, depth=0)

    def first(self, shape: ModelShape, seed: int) -> PlainModel:
        """Return weights of zero: all seeds begin alike."""
        del seed
        return PlainLinear(shape)


class PlainMethod(Method[PlainFederation]):
    """A way to forget that starts from a plain federation, of the transformer or of another family's model.

    Numbers that may be searched are attributes of an instance, by the names in `choices`.
    """

    kind: ClassVar[str]
    """Its name with the transformer."""
    words: ClassVar[str]
    """Its title with the transformer."""

    def __init__(self, family: PlainFamily | None = None) -> None:
        self.family: PlainFamily = family or PlainFamily()
        self.name = self.kind + self.family.suffix
        self.title = f"{self.words}, {self.family.title}"


def first_plain(shape: ModelShape, seed: int) -> PlainViT:
    """Return untrained weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "plain vit"))
        return PlainViT(shape)
