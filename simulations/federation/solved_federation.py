"""A federation whose shared weights are solved for, in one process: what its hospitals answer, as they would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.contribution import NumberedRecords, read_numbered
from fedmunkey.client.learning.own_memory import CaseMixes, answer, joined, memory_of
from fedmunkey.client.records.dataset import Consent
from fedmunkey.common.closed_form.feature_map import FeatureMap, Numbers
from fedmunkey.common.closed_form.folds import FOLDS, folds_of
from fedmunkey.common.closed_form.memory import Memory
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.closed_form.solving import choose, left_out_weights, shared_weights, tally
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded

_BYTES = 8
"""Of one number in a contribution."""


@dataclass(frozen=True)
class SolvedPlace:
    """A hospital's bank as solved weights read it, with its keys, which only a simulation holds side by side.

    `permanent` says whose consent cannot be withdrawn, `record_ids` which records these are, both (n,).
    """

    bank: NumberedRecords
    keys: Tensor
    permanent: NDArray[np.bool_]
    record_ids: NDArray[np.str_]

    def select(self, rows: NDArray[np.bool_]) -> SolvedPlace:
        """Return some of the records."""
        bank = self.bank
        chosen = NumberedRecords(bank.entries[rows], bank.numbers[rows], bank.labels[rows], bank.folds[rows])
        return SolvedPlace(chosen, self.keys[torch.from_numpy(rows)], self.permanent[rows], self.record_ids[rows])

    @classmethod
    def of(cls, records: Encoded, read: FeatureMap) -> SolvedPlace:
        """Return the bank of records, without any key store."""
        return cls(
            numbered(records, read),
            records.encoding.keys,
            records.records.consents == Consent.PERMANENT.value,
            records.records.record_ids,
        )

    @classmethod
    def of_store(cls, store: KeyStore, read: FeatureMap) -> SolvedPlace:
        """Return the bank that a key store holds."""

        def find(_generation: int) -> SolvedPlace:
            bank = joined(list(read_numbered(store, read)), read.size)
            ids = np.array([record for record, _ in store.records.read_ids(bank.entries)], dtype=np.str_)
            keys, permanent = store.records.read_keys(bank.entries), store.records.read_permanent(bank.entries)
            return cls(bank, keys, permanent, ids)

        return store.until_unchanged(find)


@dataclass(frozen=True)
class SolvedAnswers:
    """Released weights, and the hospitals' banks as they are now, by name."""

    release: Release
    places: Mapping[str, SolvedPlace]
    settings: Settings

    @cached_property
    def memories(self) -> dict[str, Memory]:
        """Each hospital's memory, solved from its bank."""
        return {name: memory_of(self.release, place.bank) for name, place in self.places.items()}

    @property
    def sites(self) -> frozenset[str]:
        """Hospitals whose bank holds something."""
        return frozenset(name for name, place in self.places.items() if len(place.bank.labels))

    @property
    def sent_bytes(self) -> int:
        """What one round sends: sums and tallies from each hospital, candidates and weights to it."""
        release = self.release
        shape = SumsShape(release.folds, release.feature_map.size, release.classes)
        down = 2 * sum(array.nbytes for array in release.arrays().values())
        return len(self.sites) * (_BYTES * shape.length + down)

    def keys_of(self, site: str) -> Tensor:
        """Return the keys of a hospital's bank."""
        return self.places[site].keys

    def answer(self, site: str, records: Encoded) -> Tensor:
        """Ask a hospital, which answers with its memory, for its own case mix."""
        return torch.from_numpy(self._mixes(site, records).own).float()

    def common(self, site: str, records: Encoded) -> Tensor:
        """Ask the shared weights, as every hospital does for the federation's case mix."""
        return self.weights_alone(site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        """Ask the shared weights, which answer for the federation's case mix."""
        return torch.from_numpy(self._mixes(site, records).federation).float()

    def _mixes(self, site: str, records: Encoded) -> CaseMixes:
        return answer(self.release, self.memories[site], _numbers(records, self.release.feature_map))


@dataclass(frozen=True)
class SolvedFederation(SolvedAnswers):
    """A federation that can solve anew."""

    def forget(self, gone: Mapping[str, frozenset[str]]) -> SolvedFederation:
        """Return the federation without some records' entries, its weights renewed."""
        left = {
            name: place.select(~np.isin(place.record_ids, list(gone.get(name, frozenset()))))
            for name, place in self.places.items()
        }
        return solve_federation(left, self.settings, self.release.feature_map)

    def same_bytes(self, other: SolvedFederation) -> bool:
        """Compare shared weights, keys and exemplar tokens byte by byte."""
        return self.release.digest() == other.release.digest() and all(
            torch.equal(place.keys, other.places[name].keys)
            and np.array_equal(self.memories[name].tokens, other.memories[name].tokens)
            and np.array_equal(self.memories[name].weights, other.memories[name].weights)
            for name, place in self.places.items()
        )


def solve_records(records: Mapping[str, Encoded], settings: Settings, shape: ModelShape) -> SolvedFederation:
    """Solve for a federation's weights from its hospitals' training records."""
    read = FeatureMap.of(Recipe.of(settings), shape)
    return solve_federation({name: SolvedPlace.of(some, read) for name, some in records.items()}, settings, read)


def solve_federation(places: Mapping[str, SolvedPlace], settings: Settings, read: FeatureMap) -> SolvedFederation:
    """Solve for weights as a round does; without a record they know nothing."""
    sums = Sums.zeros(SumsShape(FOLDS, read.size, settings.num_classes))
    permanent_only = Recipe.of(settings).route.permanent_only
    taking_part = [place.select(place.permanent) if permanent_only else place for place in places.values()]
    for place in taking_part:
        sums.add(place.bank.numbers, place.bank.labels, place.bank.folds)
    if not sums.records:
        return SolvedFederation(Release.nothing(read, settings.num_classes, settings.encoder), places, settings)
    left_out = left_out_weights(sums)
    banks = [place.bank for place in taking_part]
    tallies = np.sum([tally(left_out, bank.numbers, bank.labels, bank.folds) for bank in banks], axis=0)
    chosen, choice = choose(tallies, sums.records)
    weights = shared_weights(sums, choice.ridge)
    release = Release(weights, left_out[chosen], choice, read, settings.encoder, {"records": sums.records})
    return SolvedFederation(release, places, settings)


def numbered(records: Encoded, read: FeatureMap) -> NumberedRecords:
    """Return records as solved weights read them."""
    data = records.records
    return NumberedRecords(
        np.arange(len(data)), _numbers(records, read), data.labels, folds_of(data.subject_ids.tolist())
    )


def _numbers(records: Encoded, read: FeatureMap) -> Numbers:
    return read.read(records.encoding.keys.numpy(), records.encoding.features.numpy())
