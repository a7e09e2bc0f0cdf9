"""Federated averaging of a plain vision transformer: what most baselines are made to forget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmunkey.common.model import ModelShape
from fedmunkey.common.randomness import derive_seed
from fedmunkey.common.settings import Settings
from fedmunkey.simulations.federated_loop import Averaged, average_rounds
from fedmunkey.simulations.hospitals import Encoded
from fedmunkey.simulations.plain_vit import PlainViT, plain_site
from fedmunkey.simulations.unlearning.method import AfterRound, Family

_BATCH = 512

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Round:
    """One round of federated averaging, as a server that keeps everything sees it.

    Attributes
    ----------
    before : dict
        The shared weights that the hospitals got.
    sent : dict
        The weights that each hospital sent back, by name.
    examples : dict
        How many examples each trained on.
    """

    before: Weights
    sent: Mapping[str, Weights]
    examples: Mapping[str, int]


@dataclass(frozen=True)
class PlainFederation:
    """A trained model without a memory.

    Attributes
    ----------
    model : PlainViT
        The shared weights.
    sites : frozenset of str
        Hospitals with training records.
    rounds : sequence of Round
        What the server received, for methods that need it.
    """

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
        self,
        records: Mapping[str, Encoded],
        settings: Settings,
        shape: ModelShape,
        *,
        after_round: AfterRound | None = None,
    ) -> PlainFederation:
        """Train by federated averaging, and keep what a server receives."""
        sites = {name: some for name, some in records.items() if len(some.records)}
        rounds: list[Round] = []

        def note(averaged: Averaged[PlainViT]) -> None:
            sent = dict(zip(sites, averaged.sent, strict=True))
            rounds.append(Round(averaged.before, sent, dict(zip(sites, averaged.examples, strict=True))))
            if after_round is not None:
                after_round(averaged.number, PlainFederation(averaged.model, frozenset(sites)))

        local = [
            plain_site(name, some.inputs(shape), torch.from_numpy(some.records.labels), settings)
            for name, some in sites.items()
        ]
        model = average_rounds(first_plain(shape, settings.seed), local, settings.num_rounds, after_round=note)
        return PlainFederation(model, frozenset(sites), tuple(rounds))


def first_plain(shape: ModelShape, seed: int) -> PlainViT:
    """Return untrained weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "plain vit"))
        return PlainViT(shape)


def weights_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of one message with a model's weights."""
    return sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
