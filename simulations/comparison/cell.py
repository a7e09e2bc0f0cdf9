"""One cell of the comparison: one family on one data set with one seed, and all of its methods."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.comparison.search import with_changes
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case, seen_although_forgotten
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.measurement import Measurement, measure
from fedmunkey.simulations.federation.solved_federation import SolvedFederation
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.unlearning.closed_form import ClosedFormFederation
from fedmunkey.simulations.unlearning.method import Budget, Method, training_bytes
from fedmunkey.simulations.unlearning.munkey import MunkeyFederation, epsilon_of_settings
from fedmunkey.simulations.unlearning.plain_federation import PlainFederation
from fedmunkey.simulations.unlearning.retraining import Retraining, other_choices

Trained = TypeVar("Trained", bound=Answers)

_STATES = ("before", "after", "oracle")


@dataclass(frozen=True)
class Outcome:
    """What one method did with one seed.

    Attributes
    ----------
    seed : int
        Which division, forget set, first weights and random choices.
    before, after, oracle : Measurement
        Before forgetting, afterwards, and of the same family without the forgotten records.
    chance : float
        Average Gap between two oracles of the family, in points.
    bytes_sent, training_bytes : int
        In order to forget and, before that, to train; 0 where no one model is shared.
    identical : float
        1 if afterwards there are the same bytes as the oracle's, 0 if not; NaN without banks.
    epsilon : float
        A forgotten record's privacy loss; NaN where nothing bounds it.
    """

    method: str
    seed: int
    before: Measurement
    after: Measurement
    oracle: Measurement
    chance: float
    train_seconds: float
    forget_seconds: float
    bytes_sent: int
    training_bytes: int = 0
    identical: float = math.nan
    epsilon: float = math.nan

    @property
    def gap(self) -> float:
        """Average Gap to the family's oracle, in points."""
        return self.after.gap(self.oracle)

    def to_json(self) -> dict[str, Any]:
        """Return the outcome without single records' confidences; numbers that are not known are None."""
        document = asdict(self)
        for state in _STATES:
            del document[state]["forget_confidence"], document[state]["test_confidence"]
        unknown: dict[str, Any] = finite_only(document)
        return unknown

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Outcome:
        """Read what `to_json` wrote."""
        return cls(**{**_known(document), **{state: Measurement(**_known(document[state])) for state in _STATES}})


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def run_cell(
    question: Question,
    images: Encoded,
    methods: Sequence[Method[Any]],
    seed: int,
    values: Mapping[str, ConfigValue] | None = None,
) -> list[Outcome]:
    """Train one family, its oracle and another oracle, and let each of some of its methods forget.

    `values` are settings of the family's own, if any: what is forgotten does not depend on them.

    Raises `ValueError` if methods of several families are given, and `AssertionError` if the oracle has seen a
    forgotten record.
    """
    torch.set_num_threads(1)
    if len({method.family.name for method in methods}) != 1:
        raise ValueError(f"{', '.join(method.name for method in methods)} are not of one family")
    return _outcomes(with_changes(question.case(images, seed), values or {}), methods, question.budget)


def _outcomes(case: Case, methods: Sequence[Method[Trained]], budget: Budget) -> list[Outcome]:
    family, retained = methods[0].family, case.retained()
    seen = seen_although_forgotten(case, retained)
    if seen:
        raise AssertionError(f"the oracle would learn from {seen} records that are to be forgotten")

    def known(answers: Answers, *, pathways: bool = False) -> Measurement:
        return measure(answers, case.hospitals, case.forgotten, case.forgotten, case.canaries, pathways=pathways)

    start = time.perf_counter()
    trained = family.train(case.everything(), case.settings, case.shape)
    train_seconds = time.perf_counter() - start
    before = known(trained)
    clean = family.train(retained, case.settings, case.shape)
    oracle = known(clean)
    start = time.perf_counter()
    trained_again = family.train(retained, other_choices(case).settings, case.shape)
    again_seconds = time.perf_counter() - start
    other = known(trained_again)
    outcomes = []
    for method in methods:
        start = time.perf_counter()
        if isinstance(method, Retraining) and isinstance(trained_again, PlainFederation):
            # It would train the other oracle once more, which takes as long as anything here.
            forgotten, seconds = method.trained_again(trained_again, case), again_seconds
        else:
            forgotten = method.forget(trained, case, budget)
            seconds = time.perf_counter() - start
        after = known(forgotten.answers, pathways=True)
        outcomes.append(
            Outcome(
                method.name,
                case.settings.seed,
                before,
                after,
                oracle,
                other.gap(oracle),
                train_seconds,
                seconds,
                forgotten.bytes_sent,
                training_bytes(trained, case.settings.descending_rounds),
                *claims(forgotten.answers, clean),
            )
        )
    return outcomes


def claims(after: Answers, oracle: Answers) -> tuple[float, float]:
    """Return whether a federation has its oracle's bytes, and a forgotten record's epsilon, as `Outcome` has them."""
    if isinstance(after, SolvedFederation) and isinstance(oracle, SolvedFederation):
        return float(after.same_bytes(oracle)), 0.0
    if isinstance(after, ClosedFormFederation) and isinstance(oracle, ClosedFormFederation):
        return float(after.same_bytes(oracle)), 0.0
    if not (isinstance(after, MunkeyFederation) and isinstance(oracle, MunkeyFederation)):
        return math.nan, math.nan
    epsilon = epsilon_of_settings(after.settings)
    return float(after.same_bytes(oracle)), epsilon if math.isfinite(epsilon) else math.nan
