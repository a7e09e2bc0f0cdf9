"""What a comparison or an audit asks: how hospitals are made, and what they are to forget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fedmunkey.common.model.model_choice import choose_encoder, choose_shape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, divide, encode_all
from fedmunkey.simulations.federation.partition import DivideBy, homes_of
from fedmunkey.simulations.federation.scanners import as_scanned
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS
from fedmunkey.simulations.unlearning.method import Budget


@dataclass(frozen=True)
class Question:
    """What every method is asked.

    Attributes
    ----------
    settings : Settings
        Of the federation, with the data set's classes and image shape.
    alpha : float
        How alike they are; infinity for the same share of each class.
    permanent : float
        Share of the records that were given for good; only under `exact` does it matter.
    forget : float
        Share of all training records that is forgotten.
    budget : Budget
        What methods that train again may use.
    divide_by : DivideBy
        What hospitals differ in.
    feature_shift : float
        How much their scanners differ, from 0 to 1; each seed draws other scanners.
    """

    settings: Settings
    hospitals: int
    alpha: float
    permanent: float
    forget: float
    forget_set: str
    budget: Budget
    divide_by: DivideBy = DivideBy.LABELS
    feature_shift: float = 0.0

    def case(self, images: Encoded, seed: int) -> Case:
        """Divide the records, and draw what is forgotten; the same for every family."""
        settings = self.settings.replace(seed=seed)
        shape = choose_shape(settings)
        if self.feature_shift:
            images = self._as_scanned(images, seed)
        hospitals = divide(
            images, self.hospitals, alpha=self.alpha, permanent=self.permanent, seed=seed, by=self.divide_by
        )
        drawn = FORGET_SETS[self.forget_set](settings, shape).draw(hospitals, self.forget, seed)
        return Case(drawn.hospitals, drawn.deletions, drawn.canaries, settings, shape)

    def _as_scanned(self, images: Encoded, seed: int) -> Encoded:
        """Encode the images as the hospitals' scanners take them."""
        records = images.records
        homes = homes_of(records, self.hospitals, alpha=self.alpha, seed=seed, by=self.divide_by)
        scanned = as_scanned(records, homes, self.hospitals, self.feature_shift, seed)
        return encode_all(choose_encoder(self.settings), scanned)

    def with_settings(self, settings: Settings) -> Question:
        """Return the same question to a federation with other settings."""
        return replace(self, settings=settings)


def describe_question(question: Question) -> dict[str, Any]:
    """Return what every method is asked, as a report has it."""
    forget_set = FORGET_SETS[question.forget_set](question.settings, choose_shape(question.settings))
    return {
        "hospitals": question.hospitals,
        "alpha": str(question.alpha),
        "division": {"by": question.divide_by.value, "feature_shift": question.feature_shift},
        "forget": question.forget,
        "permanent": question.permanent,
        "forget_set": {"name": forget_set.name, "title": forget_set.title},
    }
