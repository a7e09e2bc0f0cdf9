"""What a hospital's memory adds to the federation's weights, where it should add most.

Each question sets three answers of one hospital beside each other: the shared weights alone, the hospital with its
memory, and the votes of its own nearest neighbours, without any weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.learning.own_memory import mix_weights
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.answers import Answers, HospitalBank
from fedmunkey.simulations.federation.hospitals import Encoded, bank_of, divide, encode_all
from fedmunkey.simulations.federation.scanners import Scanner
from fedmunkey.simulations.federation.solved_federation import SolvedAnswers, SolvedFederation, SolvedPlace
from fedmunkey.simulations.unlearning.munkey import MunkeyFederation, munkey_family
from fedmunkey.simulations.unlearning.nearest_neighbours import NeighbourFamily

_ALPHA = 1.0
_MOST_SHIFT = 1.0


class Asked(StrEnum):
    """Where a memory should help, by name; `what` says what is counted."""

    RARE = "rare class"
    LATE = "late hospital"
    SHIFTED = "shifted hospital"
    NEW = "new class"

    @property
    def what(self) -> str:
        """What is counted, in percent."""
        return {
            Asked.RARE: "right answers about the rarest class, mean over the hospitals that have it",
            Asked.LATE: "accuracy on its own case mix of a hospital whose records no weight has learned from",
            Asked.SHIFTED: "the same of a late hospital whose scanner differs in brightness, contrast and blur",
            Asked.NEW: "right answers about a class that only the late hospital has, and no weight has learned",
        }[self]


@dataclass(frozen=True)
class Answered:
    """One question on one division: percent by the weights alone, with memory, and by nearest neighbours."""

    weights: float
    memory: float
    neighbours: float


def ask(asked: Asked, images: Encoded, settings: Settings, hospitals: int, seed: int) -> Answered:
    """Divide records among hospitals, train all or all but the last one, and ask."""
    torch.set_num_threads(1)
    settings = settings.replace(seed=seed)
    parts = divide(images, hospitals, alpha=_ALPHA, permanent=0.0, seed=seed)
    train = {one.name: one.given.split(Split.TRAIN) for one in parts}
    test = parts[0].test
    shape = choose_shape(settings)
    family = munkey_family(settings.guarantee)
    last = parts[-1].name
    others = {name: some for name, some in train.items() if name != last}
    rarest = int(np.bincount(images.split(Split.TRAIN).records.labels, minlength=settings.num_classes).argmin())
    if asked is Asked.RARE:
        federation = family.train(train, settings, shape)
        have = [name for name, some in train.items() if (some.records.labels == rarest).any()]
        return _mean([_compare(federation, name, train[name], _of_class(test, rarest), settings) for name in have])
    if asked is Asked.NEW:
        others = {name: some.select(some.records.labels != rarest) for name, some in others.items()}
        known = images.split(Split.TRAIN)
        bank = _joined_class(train[last], known, rarest)
        federation = family.train(others, settings, shape)
        return _compare(arrived(federation, last, bank, settings), last, bank, _of_class(test, rarest), settings)
    bank = train[last]
    if asked is Asked.SHIFTED:
        scan = Scanner.draw(hospitals - 1, _MOST_SHIFT, seed).scan
        bank, test = (_scanned(some, scan, settings) for some in (bank, test))
    federation = family.train(others, settings, shape)
    return _compare(arrived(federation, last, bank, settings), last, bank, test, settings, own_mix=True)


def arrived(federation: Answers, name: str, bank: Encoded, settings: Settings) -> Answers:
    """Return a federation to which a hospital has come with its records; no weight changes."""
    if isinstance(federation, SolvedFederation):
        place = SolvedPlace.of(bank, federation.release.feature_map)
        return SolvedAnswers(federation.release, {**federation.places, name: place}, settings)
    if not isinstance(federation, MunkeyFederation):
        raise TypeError(f"{type(federation).__name__} has no memory")
    shape: ModelShape = federation.model.shape
    place_of: Mapping[str, HospitalBank] = {
        **federation.places,
        name: HospitalBank(bank_of(bank, federation.settings, shape), bank.encoding.keys),
    }
    return replace(federation, places=place_of)


def _compare(
    federation: Answers, name: str, bank: Encoded, test: Encoded, settings: Settings, *, own_mix: bool = False
) -> Answered:
    labels = test.records.labels
    counts = mix_weights(labels, bank.records.labels, settings.num_classes) if own_mix else np.ones(len(labels))
    neighbours = NeighbourFamily().train({name: bank}, settings, choose_shape(settings))

    def right(answers: torch.Tensor) -> float:
        """Return the weighted share of right answers in percent."""
        hits = answers.argmax(1).numpy() == labels
        return 100 * float(counts @ hits / counts.sum()) if counts.sum() else float("nan")

    return Answered(
        right(federation.weights_alone(name, test)),
        right(federation.answer(name, test)),
        right(neighbours.answer(name, test)),
    )


def _mean(found: list[Answered]) -> Answered:
    columns = [[getattr(one, name) for one in found] for name in ("weights", "memory", "neighbours")]
    return Answered(*(float(np.mean(values)) for values in columns))


def _of_class(records: Encoded, label: int) -> Encoded:
    return records.select(records.records.labels == label)


def _joined_class(bank: Encoded, everything: Encoded, label: int) -> Encoded:
    """Return a hospital's records with all training records of a class, which no other hospital has."""
    ids: NDArray[np.bool_] = np.isin(everything.records.record_ids, bank.records.record_ids)
    return everything.select(ids | (everything.records.labels == label))


def _scanned(records: Encoded, scan: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], settings: Settings) -> Encoded:
    images = scan(records.records.images)
    return encode_all(choose_encoder(settings), replace(records.records, images=images))
