"""Divide one data set among simulated hospitals that differ in labels, in size, or in where records come from."""

from __future__ import annotations

import heapq
import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.errors import InvalidDataset, InvalidSetting
from fedmunkey.common.model.randomness import derive_seed

_DRAWS = 100
_ENOUGH_RECORDS = 10


class DivideBy(StrEnum):
    """What hospitals differ in: their mixtures of labels, how many records they have, or where records come from."""

    LABELS = "labels"
    SIZES = "sizes"
    SOURCES = "sources"


def partition(
    dataset: Dataset, hospitals: int, *, alpha: float, seed: int, by: DivideBy = DivideBy.LABELS
) -> list[Dataset]:
    """Divide the training records among hospitals as `homes_of`, and give every hospital all held-out records.

    The held-out splits are the same everywhere, because hospitals that are tested on different records cannot be
    compared with each other, with another `alpha` or with a run without the federation. Each part has its records in
    the order of `dataset`.
    """
    homes = homes_of(dataset, hospitals, alpha=alpha, seed=seed, by=by)
    return [dataset.select((homes < 0) | (homes == hospital)) for hospital in range(hospitals)]


def homes_of(
    dataset: Dataset, hospitals: int, *, alpha: float, seed: int, by: DivideBy = DivideBy.LABELS
) -> NDArray[np.int64]:
    """Return (n,) the hospital, from 0, of each training record, and -1 for held-out ones.

    For each class, the hospitals' shares are drawn from a Dirichlet distribution with concentration `alpha`: the
    smaller it is, the fewer hospitals have most of a class. Hsu et al. (2019, arXiv 1909.06335) draw each hospital's
    mixture of classes instead; drawing each class's shares, as Yurochkin et al. (2019, arXiv 1905.12022) do, uses every
    record. A subject's training records stay together; for its place a subject counts with its most frequent label.

    By `SIZES`, one draw gives the hospitals' shares of every class: they differ in size and have the same mixture. By
    `SOURCES`, `alpha` decides nothing: a source's records stay together, the largest source goes to the hospital with
    the fewest records so far, and a subject with records of several sources is at several hospitals.

    `alpha` is above 0; `inf` gives every hospital the same share of each class. Every hospital has at least one subject
    with training records and, where subjects are small enough, at least min(10, N / (2 * hospitals)) training records
    of all N. Raises `InvalidSetting` if `hospitals` or `alpha` is out of range; `InvalidDataset` if fewer subjects or
    sources than hospitals have training records, or there are no sources to divide by.
    """
    if hospitals < 1:
        raise InvalidSetting(f"{hospitals} hospitals are too few; give at least 1")
    if not alpha > 0:
        raise InvalidSetting(f"alpha = {alpha}: must be greater than 0; larger values make hospitals more alike")
    train = dataset.splits == Split.TRAIN.value
    row_homes = np.full(len(dataset), -1)
    if by is DivideBy.SOURCES:
        row_homes[train] = _homes_by_source(dataset, train, hospitals)
        return row_homes
    subject_ids, subjects = np.unique(dataset.subject_ids[train], return_inverse=True)
    if len(subject_ids) < hospitals:
        raise InvalidDataset(
            f"{len(subject_ids)} subjects with training records cannot be divided among {hospitals} hospitals; "
            f"choose at most {len(subject_ids)} hospitals"
        )
    generator = np.random.default_rng(derive_seed(seed, "partition"))
    sizes = np.bincount(subjects)
    classes = _majority_labels(subjects, dataset.labels[train], dataset.num_classes)
    enough = max(1, min(_ENOUGH_RECORDS, len(subjects) // (2 * hospitals)))
    class_records = np.bincount(classes, sizes, dataset.num_classes).astype(np.float64)
    targets = _targets(class_records, hospitals, alpha, enough, generator, alike=by is DivideBy.SIZES)
    homes = _assign(sizes, classes, targets, generator)
    _feed(homes, sizes, hospitals, enough, generator)
    row_homes[train] = homes[subjects]
    return row_homes


def _homes_by_source(dataset: Dataset, train: NDArray[np.bool_], hospitals: int) -> NDArray[np.int64]:
    """Return the hospital of each training record: that of its source."""
    if dataset.sources is None:
        raise InvalidDataset(
            "the data set does not say where its records come from; write the array train_sources into its .npz, "
            "or divide by labels or sizes"
        )
    names, sources = np.unique(dataset.sources[train], return_inverse=True)
    if len(names) < hospitals:
        raise InvalidDataset(
            f"{len(names)} sources cannot be divided among {hospitals} hospitals; choose at most {len(names)} hospitals"
        )
    sizes = np.bincount(sources)
    loads = [(0, hospital) for hospital in range(hospitals)]
    homes = np.zeros(len(names), dtype=np.int64)
    for source in np.argsort(-sizes, kind="stable"):
        load, hospital = loads[0]
        homes[source] = hospital
        heapq.heapreplace(loads, (load + int(sizes[source]), hospital))
    return homes[sources]


def _majority_labels(subjects: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Return the most frequent label of each subject, the lowest of several."""
    pairs, counts = np.unique(subjects * num_classes + labels, return_counts=True)
    order = np.lexsort((pairs, -counts, pairs // num_classes))
    _, first = np.unique(pairs[order] // num_classes, return_index=True)
    majority: NDArray[np.int64] = pairs[order][first] % num_classes
    return majority


def _targets(
    class_records: NDArray[np.float64],
    hospitals: int,
    alpha: float,
    enough: int,
    generator: np.random.Generator,
    *,
    alike: bool,
) -> NDArray[np.float64]:
    """Draw how many records of each class every hospital should get, (classes, hospitals).

    With `alike` a hospital gets the same share of every class.

    Draws are repeated until no hospital is starved; after `_DRAWS` of them the one with the best fed smallest hospital
    is taken.
    """
    if math.isinf(alpha):
        return np.outer(class_records, np.full(hospitals, 1 / hospitals))
    best, best_smallest = np.zeros((len(class_records), hospitals)), -1.0
    for _ in range(_DRAWS):
        draws = 1 if alike else len(class_records)
        targets = class_records[:, None] * generator.dirichlet(np.full(hospitals, alpha), draws)
        smallest = float(targets.sum(axis=0).min())
        if smallest > best_smallest:
            best, best_smallest = targets, smallest
        if best_smallest >= enough:
            break
    return best


def _assign(
    sizes: NDArray[np.int64],
    classes: NDArray[np.int64],
    targets: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Give each subject, large ones first, to the hospital that lacks most records of the subject's class.

    Of several hospitals that lack the same number, the one with the fewest records so far is chosen.
    """
    homes = np.zeros(len(sizes), dtype=np.int64)
    loads = [0] * targets.shape[1]
    shuffled = generator.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    for label, wanted in enumerate(targets):
        lacking = [(-float(number), loads[hospital], hospital) for hospital, number in enumerate(wanted)]
        heapq.heapify(lacking)
        for subject in order[classes[order] == label]:
            surplus, _, hospital = lacking[0]
            size = int(sizes[subject])
            homes[subject] = hospital
            loads[hospital] += size
            heapq.heapreplace(lacking, (surplus + size, loads[hospital], hospital))
    return homes


def _feed(
    homes: NDArray[np.int64], sizes: NDArray[np.int64], hospitals: int, enough: int, generator: np.random.Generator
) -> None:
    """Move subjects, in place, from the largest hospitals to those with none or with fewer than `enough` records."""
    for hospital in range(hospitals):
        while True:
            loads = np.bincount(homes, sizes, hospitals).astype(np.float64)
            if loads[hospital] >= enough:
                break
            subject = _spare_subject(homes, sizes, loads, enough, generator)
            if subject is None and not loads[hospital]:
                subject = _spare_subject(homes, sizes, loads, 1, generator)
            if subject is None:
                break
            homes[subject] = hospital


def _spare_subject(
    homes: NDArray[np.int64],
    sizes: NDArray[np.int64],
    loads: NDArray[np.float64],
    keep: int,
    generator: np.random.Generator,
) -> int | None:
    """Choose a subject that the largest possible hospital can give away and still have `keep` records."""
    spare = np.flatnonzero(loads[homes] - sizes >= keep)
    if not len(spare):
        return None
    largest = loads[homes[spare]].max()
    return int(generator.choice(spare[loads[homes[spare]] == largest]))
