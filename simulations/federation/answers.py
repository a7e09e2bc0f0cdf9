"""A federation that has learned, seen from outside: what each hospital answers when asked about images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.evaluation import predict, predict_image_only
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import nearest
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded


class Answers(Protocol):
    """A trained federation as those see it who may ask it: probabilities, not weights."""

    @property
    def sites(self) -> frozenset[str]:
        """The hospitals that still hold training records, and so count when accuracy is averaged."""

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities that a hospital gives for records; its own are asked as any others."""

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities of what is shared, without anything that a hospital keeps to itself."""


@runtime_checkable
class Banked(Protocol):
    """A federation whose hospitals keep keys."""

    def keys_of(self, site: str) -> Tensor:
        """Return (n, key_size) keys that a hospital holds."""


@runtime_checkable
class MixedAnswers(Protocol):
    """A federation that tells its own case mix from that of a hospital, for which `Answers.answer` is."""

    def common(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities for the federation's case mix."""


@runtime_checkable
class MemoryAlone(Protocol):
    """A federation whose hospitals answer from what they remember, without the image path."""

    def memory_alone(self, site: str, records: Encoded) -> Tensor:
        """Return (n, num_classes) probabilities of a hospital's memory alone."""


def common_answers(answers: Answers, site: str, records: Encoded) -> Tensor:
    """Ask a hospital about records that are mixed as the federation's are."""
    return (answers.common if isinstance(answers, MixedAnswers) else answers.answer)(site, records)


@dataclass(frozen=True)
class HospitalBank:
    """A hospital's bank together with its keys, which only a simulation holds side by side."""

    bank: Bank
    keys: Tensor

    def without(self, rows: Tensor, neighbours: int) -> HospitalBank:
        """Return the bank without the entries of some rows (boolean, n): deletion computes nothing else anew.

        Neighbour lists are `neighbours` long afterwards, as a deletion's patches leave them.
        """
        left = (~rows).nonzero()[:, 0]
        keys = self.keys[left]
        lists = nearest(keys, keys, neighbours, own=torch.arange(len(left)))
        return HospitalBank(self.bank.select(left.numpy(), lists), keys)


@dataclass(frozen=True)
class MunkeyAnswers:
    """Shared weights and the hospitals' banks as they are now, by name; the settings say how neighbours are read."""

    model: Munkey
    places: Mapping[str, HospitalBank]
    settings: Settings

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals whose bank holds something."""
        return frozenset(name for name, place in self.places.items() if len(place.bank))

    def keys_of(self, site: str) -> Tensor:
        """Return the keys of a hospital's bank."""
        return self.places[site].keys

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Look records up in a hospital's bank and let the members vote."""
        place = self.places[site]
        reading = Recipe.of(self.settings).reading
        lists = nearest(records.encoding.keys, place.keys, reading.neighbours)
        return predict(self.model, place.bank, records.inputs(self.model.shape), lists, reading)

    def memory_alone(self, site: str, records: Encoded) -> Tensor:
        """Ask a hospital's bank, the image being replaced by the null image."""
        place = self.places[site]
        reading = Recipe.of(self.settings).reading
        lists = nearest(records.encoding.keys, place.keys, reading.neighbours)
        return predict(self.model, place.bank, records.inputs(self.model.shape), lists, reading, image=False)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Ask the image path with null memory."""
        del site
        return predict_image_only(self.model, records.inputs(self.model.shape))
