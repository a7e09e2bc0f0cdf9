"""A site's memory under `exact`: solved from its bank and the released weights whenever it is needed, kept nowhere.

So nothing of it must be erased, and after a deletion, an arrival or a renewal it is what it would be had the bank never
been another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.contribution import NumberedRecords, read_numbered
from fedmunkey.client.learning.held_out import OwnHeldOut, SharedHeldOut
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import Numbers
from fedmunkey.common.closed_form.linear_answers import probabilities, scores
from fedmunkey.common.closed_form.memory import Memory, solve_memory
from fedmunkey.common.closed_form.release import Release
from fedmunkey.common.closed_form.solving import left_out_scores
from fedmunkey.common.model.metrics import score_macro_f1


@dataclass(frozen=True)
class CaseMixes:
    """What a site answers about n records: (n, classes) probabilities for the federation's case mix and for its own."""

    federation: Numbers
    own: Numbers


@dataclass(frozen=True)
class SolvedEvaluation:
    """Results on one held-out split, of so many records.

    Losses are mean negative log-likelihoods in nats. The first three are those of the shared weights alone, which
    answer for the federation's case mix. The `own` ones are of the shared weights with the site's memory, each record
    counted as often as its class occurs in the site's bank.
    """

    examples: int
    loss: float
    accuracy: float
    macro_f1: float
    own_loss: float
    own_accuracy: float


def read_memory(store: KeyStore, release: Release) -> tuple[Memory, NDArray[np.int64]]:
    """Solve for the tokens of a site's bank; return them with the (n,) labels of its entries."""

    def solve(_generation: int) -> tuple[Memory, NDArray[np.int64]]:
        bank = joined(list(read_numbered(store, release.feature_map)), release.feature_map.size)
        return memory_of(release, bank), bank.labels

    return store.until_unchanged(solve)


def memory_of(release: Release, bank: NumberedRecords) -> Memory:
    """Solve for the tokens of a bank."""
    left_out = left_out_scores(release.left_out, bank.numbers, bank.folds)
    return solve_memory(bank.numbers, bank.labels, left_out, release.choice.temperature)


def joined(parts: list[NumberedRecords], size: int) -> NumberedRecords:
    """Put some records behind each other."""
    none = np.empty(0, dtype=np.int64)
    parts = [NumberedRecords(none, np.empty((0, size)), none, none), *parts]
    return NumberedRecords(
        np.concatenate([part.entries for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.folds for part in parts]),
    )


def answer(release: Release, memory: Memory, numbers: Numbers) -> CaseMixes:
    """Return what a site with a memory answers about (n, size) numbers."""
    scored = scores(numbers, release.weights)
    return CaseMixes(
        probabilities(scored, release.choice.temperature),
        probabilities(memory.add(numbers, scored), memory.temperature),
    )


def evaluate_held_out(
    store: KeyStore, release: Release, about: OwnHeldOut | SharedHeldOut, splits: Iterable[Split]
) -> dict[Split, SolvedEvaluation]:
    """Evaluate released weights, and a site's memory with them, on held-out splits."""
    memory, bank_labels = read_memory(store, release)
    found = {}
    for split in splits:
        held_out = about.numbered(store, split, release.feature_map)
        found[split] = evaluate_mixes(answer(release, memory, held_out.numbers), held_out.labels, bank_labels)
    return found


def count_right_held_out(store: KeyStore, release: Release, split: Split) -> int:
    """Return how many of a site's held-out records released weights answer rightly by themselves, without its bank."""

    def count(_generation: int) -> int:
        parts = read_numbered(store, release.feature_map, split)
        return sum(int((scores(part.numbers, release.weights).argmax(1) == part.labels).sum()) for part in parts)

    return store.until_unchanged(count)


def evaluate_mixes(answers: CaseMixes, labels: NDArray[np.int64], bank: NDArray[np.int64]) -> SolvedEvaluation:
    """Evaluate answers about n labelled records, at a site whose bank has some labels; not a number without records."""
    if not len(labels):
        return SolvedEvaluation(0, *[math.nan] * 5)
    weights = mix_weights(labels, bank, answers.own.shape[1])
    hits = answers.own.argmax(1) == labels
    whole = float(weights.sum())
    return SolvedEvaluation(
        examples=len(labels),
        loss=float(_lost(answers.federation, labels).mean()),
        accuracy=float((answers.federation.argmax(1) == labels).mean()),
        macro_f1=score_macro_f1(labels, answers.federation.argmax(1)),
        own_loss=float(weights @ _lost(answers.own, labels)) / whole if whole else math.nan,
        # Sums of fractions may come to a little more than their whole.
        own_accuracy=min(float(weights @ hits) / whole, 1.0) if whole else math.nan,
    )


def mix_weights(labels: NDArray[np.int64], bank: NDArray[np.int64], classes: int) -> Numbers:
    """Return how often each of n labelled records counts, so that classes are as frequent among them as in a bank."""
    there = np.bincount(labels, minlength=classes)
    wanted = np.bincount(bank, minlength=classes)
    weights: Numbers = (wanted / np.maximum(there, 1))[labels]
    return weights


def _lost(answered: Numbers, labels: NDArray[np.int64]) -> Numbers:
    lost: Numbers = -np.log(np.maximum(answered[np.arange(len(labels)), labels], 1e-12))
    return lost
