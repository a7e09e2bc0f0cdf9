"""Federated averaging of a plain vision transformer, from which most methods start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.federated_loop import Averaged, average_rounds
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.plain_vit import Examples, PlainViT, plain_site
from fedmunkey.simulations.unlearning.method import AfterRound, Family, SiteRecords

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

    model: PlainViT
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

    def train(
        self, records: SiteRecords, settings: Settings, shape: ModelShape, *, after_round: AfterRound | None = None
    ) -> PlainFederation:
        """Train by federated averaging, and keep what a server receives."""
        sites = {name: some for name, some in records.items() if len(some.records)}
        rounds: list[Round] = []

        def note(averaged: Averaged[PlainViT]) -> None:
            rounds.append(Round(averaged.before, dict(zip(sites, averaged.sent, strict=True))))
            if after_round is not None:
                after_round(averaged.number, PlainFederation(averaged.model, frozenset(sites)))

        local = [plain_site(name, Examples.of(some, shape), settings) for name, some in sites.items()]
        model = average_rounds(first_plain(shape, settings.seed), local, settings.descending_rounds, after_round=note)
        return PlainFederation(model, frozenset(sites), tuple(rounds))


def first_plain(shape: ModelShape, seed: int) -> PlainViT:
    """Return untrained weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "plain vit"))
        return PlainViT(shape)
