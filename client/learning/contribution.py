"""A site's part in weights that are solved for: sums over its active records, read in blocks and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import FeatureMap, Numbers
from fedmunkey.common.closed_form.folds import FOLDS, folds_of
from fedmunkey.common.closed_form.linear_answers import WholeWeights
from fedmunkey.common.closed_form.solving import tally
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.errors import BankChanged

_BLOCK = 2048


@dataclass(frozen=True)
class NumberedRecords:
    """Some records as a feature map reads them: (n, size) numbers, (n,) classes and folds, (n,) entry numbers."""

    entries: NDArray[np.int64]
    numbers: Numbers
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]


def read_numbered(
    store: KeyStore,
    feature_map: FeatureMap,
    split: Split = Split.TRAIN,
    *,
    permanent_only: bool = False,
    up_to: int | None = None,
) -> Iterator[NumberedRecords]:
    """Yield a split's records in the order of their entries, some at a time.

    All are read, or those of permanent consent, and up to some entry where later ones have arrived meanwhile.
    Raises `BankChanged` if entries were deleted meanwhile.
    """
    entries, every_label = store.records.read_entries(split)
    labels = every_label.numpy()
    if up_to is not None:
        entries, labels = entries[entries <= up_to], labels[entries <= up_to]
    if permanent_only:
        chosen = store.records.read_permanent(entries)
        entries, labels = entries[chosen], labels[chosen]
    for start in range(0, len(entries), _BLOCK):
        part = entries[start : start + _BLOCK]
        keys = store.records.read_keys(part).numpy() if feature_map.random else np.empty((len(part), 0), np.float32)
        features = np.empty((len(part), 0, 0), np.float32)
        if feature_map.features[0]:
            features = store.records.read_inputs(part).numpy()
        numbers = feature_map.read(keys, features)
        subjects = (subject for _, subject in store.records.read_ids(part))
        yield NumberedRecords(part, numbers, labels[start : start + _BLOCK], folds_of(subjects))


@dataclass(frozen=True)
class Contribution:
    """Sums over a site's records, the generation of the bank that they are of, and its last entry."""

    sums: Sums
    generation: int
    last_entry: int


def sum_records(store: KeyStore, feature_map: FeatureMap, classes: int, *, permanent_only: bool) -> Contribution:
    """Add a site's records up."""

    def add_up(generation: int) -> Contribution:
        last_entry = 0
        sums = Sums.zeros(SumsShape(FOLDS, feature_map.size, classes))
        for some in read_numbered(store, feature_map, permanent_only=permanent_only):
            sums.add(some.numbers, some.labels, some.folds)
            last_entry = int(some.entries[-1])
            if store.generation != generation:
                raise BankChanged("entries were deleted while sums were made; they are made again")
        return Contribution(sums, generation, last_entry)

    return store.until_unchanged(add_up)


def tally_records(
    store: KeyStore,
    feature_map: FeatureMap,
    left_out: WholeWeights,
    *,
    generation: int,
    last_entry: int,
    permanent_only: bool,
) -> NDArray[np.int64]:
    """Return how (ridges, folds, size, classes) weights did on the records that `sum_records` was over.

    Raises `BankChanged` if these are not the site's any more: sums and tallies would be of different records.
    """
    no_record = np.empty(0, dtype=np.int64)
    total = tally(left_out, np.empty((0, feature_map.size)), no_record, no_record)
    for some in read_numbered(store, feature_map, permanent_only=permanent_only, up_to=last_entry):
        total += tally(left_out, some.numbers, some.labels, some.folds)
    if store.generation != generation:
        raise BankChanged("records were deleted while a round was under way; it is begun again")
    return total
