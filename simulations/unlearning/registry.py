"""All ways to forget, by name, in the order of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.unlearning.class_means import ClassMeans
from fedmunkey.simulations.unlearning.closed_form import ClosedForm
from fedmunkey.simulations.unlearning.local_memorization import LocalMemorization
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import KeyDeletion, SolvedDeletion
from fedmunkey.simulations.unlearning.nearest_neighbours import NearestNeighbours
from fedmunkey.simulations.unlearning.plain.fed_eraser import FedEraser
from fedmunkey.simulations.unlearning.plain.fine_tuning import FineTuning
from fedmunkey.simulations.unlearning.plain.negative_gradient import NegativeGradient
from fedmunkey.simulations.unlearning.plain.nothing import Nothing
from fedmunkey.simulations.unlearning.plain.rapid_retraining import RapidRetraining
from fedmunkey.simulations.unlearning.plain.rewinding import Rewinding
from fedmunkey.simulations.unlearning.plain.scrub import Scrub
from fedmunkey.simulations.unlearning.plain.synaptic_dampening import SynapticDampening
from fedmunkey.simulations.unlearning.plain_federation import LinearFamily, PlainFamily, PlainMethod
from fedmunkey.simulations.unlearning.retraining import Retraining
from fedmunkey.simulations.unlearning.sisa import Sisa

_ON_PLAIN_MODELS: tuple[type[PlainMethod], ...] = (
    Nothing,
    FineTuning,
    NegativeGradient,
    SynapticDampening,
    Scrub,
    FedEraser,
    RapidRetraining,
    Rewinding,
    Retraining,
)
"""Each of a transformer, and of a linear function of the frozen features."""

_ALL: tuple[Method[Any], ...] = (
    SolvedDeletion(),
    KeyDeletion(Guarantee.CERTIFIED),
    KeyDeletion(Guarantee.EMPIRICAL),
    ClosedForm(),
    NearestNeighbours(),
    LocalMemorization(),
    ClassMeans(),
    *(method(family) for family in (LinearFamily(), PlainFamily()) for method in _ON_PLAIN_MODELS),
    Sisa(),
)

METHODS: Mapping[str, Method[Any]] = {method.name: method for method in _ALL}
"""MUNKEY under each guarantee, then what people would use instead."""
