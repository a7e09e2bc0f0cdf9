"""The search for settings on validation data: the same number of tries for every family and every method, ours too.

It is made on a federation of its own, with a seed that no figure comes from, and never looks at a test record. How a
family learns is chosen first, by validation accuracy; then how each of its methods forgets, by validation accuracy less
the Average Gap to the oracle, both on validation records. Families that forget by design have nothing left to choose
then, and their learning is chosen so. Of equally good ones the first is taken, and the first is what the paper says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import ConfigValue
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.measurement import Measurement, measure
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.programs.json_values import finite_only
from fedmunkey.simulations.unlearning.method import Method

TRIES = 4
"""How many settings a family and each of its methods may try, the paper's among them."""

_OTHER_SEED = 2_000_003
"""Added to the first seed, so that the federation of the search is none of those that are compared."""


@dataclass(frozen=True)
class Tried:
    """One setting, as what differs from the first, and what came of it on validation records.

    Attributes
    ----------
    accuracy : float
        In percent: the mean of that for the federation's case mix and for each hospital's own.
    gap : float
        Average Gap to the family's oracle in points; NaN where only learning was tried.
    """

    values: Mapping[str, ConfigValue]
    accuracy: float
    gap: float = math.nan

    @property
    def score(self) -> float:
        """Accuracy less the gap, in points; the worst where there is no accuracy."""
        score = self.accuracy - (0.0 if math.isnan(self.gap) else self.gap)
        return -math.inf if math.isnan(score) else score

    @property
    def words(self) -> str:
        """The setting as people read it."""
        return ", ".join(f"{name} = {_short(value)}" for name, value in self.values.items()) or "as published"


@dataclass(frozen=True)
class Searched:
    """What was tried for how the family of a name learns or, without `learning`, how the method of a name forgets."""

    name: str
    learning: bool
    tried: Sequence[Tried]

    @property
    def chosen(self) -> Tried:
        """The best; of several the first."""
        return max(self.tried, key=lambda one: one.score)

    def to_json(self) -> dict[str, Any]:
        """Return what was tried, JSON-ready; what is not known is None."""
        known: dict[str, Any] = finite_only(
            {"name": self.name, "learning": self.learning, "tried": [asdict(one) for one in self.tried]}
        )
        return known

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Searched:
        """Read what `to_json` wrote."""
        tried = [
            Tried(one["values"], *(math.nan if one[name] is None else one[name] for name in ("accuracy", "gap")))
            for one in document["tried"]
        ]
        return cls(document["name"], document["learning"], tried)


def search(
    question: Question, images: Encoded, methods: Sequence[Method[Any]], seed: int, tries: int = TRIES
) -> list[Searched]:
    """Search for the settings of one family, under its name, and of its methods, under theirs; those that have any.

    `seed` is the first of those that are compared. Raises `InvalidDataset` if there are no validation records.
    """
    torch.set_num_threads(1)
    family = methods[0].family
    case = on_validation(question.case(images, (seed + _OTHER_SEED) % 2**31))

    def learned(values: Mapping[str, ConfigValue]) -> tuple[Answers, Tried]:
        own = with_changes(case, values)
        trained = family.train(own.everything(), own.settings, own.shape)
        if not family.forgets_by_design:
            return trained, Tried(values, _accuracy(_known(trained, own)))
        oracle = _known(family.train(own.retained(), own.settings, own.shape), own)
        after = _known(methods[0].forget(trained, own, question.budget).answers, own)
        return trained, Tried(values, _accuracy(after), after.gap(oracle))

    found = []
    trained, best = learned(family.choices[0])
    if len(family.choices[:tries]) > 1:
        tried = [(trained, best), *(learned(values) for values in family.choices[1:tries])]
        found.append(Searched(family.name, learning=True, tried=[one for _, one in tried]))
        trained = next(answers for answers, one in tried if one is found[0].chosen)
        best = found[0].chosen
    searching = [method for method in methods if len(method.choices[:tries]) > 1]
    if not searching:
        return found
    own = with_changes(case, best.values)
    oracle = _known(family.train(case.retained(), own.settings, own.shape), own)
    for method in searching:
        results = []
        for values in method.choices[:tries]:
            after = _known(method.chosen(values).forget(trained, own, question.budget).answers, own)
            results.append(Tried(values, _accuracy(after), after.gap(oracle)))
        found.append(Searched(method.name, learning=False, tried=results))
    return found


def on_validation(case: Case) -> Case:
    """Return the same case, of which hospitals are tested on their validation records."""
    hospitals = [replace(one, tested=one.given.split(Split.VAL)) for one in case.hospitals]
    if not any(len(one.test.records) for one in hospitals):
        raise InvalidDataset("the data set has no validation records to search settings on; give --tries 1")
    return replace(case, hospitals=hospitals)


def with_changes(case: Case, values: Mapping[str, ConfigValue]) -> Case:
    """Return the same question to a federation some of whose settings have other values."""
    if not values:
        return case
    settings = Settings.parse({**case.settings.to_config(), **values})
    return replace(case, settings=settings, shape=choose_shape(settings))


def _known(answers: Answers, case: Case) -> Measurement:
    return measure(answers, case.hospitals, case.forgotten, case.forgotten, case.canaries)


def _accuracy(found: Measurement) -> float:
    return (found.test_accuracy + found.own_accuracy) / 2


def _short(value: ConfigValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
