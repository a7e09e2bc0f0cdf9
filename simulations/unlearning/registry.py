"""All ways to forget, by name, in the order of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.unlearning.fed_eraser import FedEraser
from fedmunkey.simulations.unlearning.fine_tuning import FineTuning
from fedmunkey.simulations.unlearning.method import Method
from fedmunkey.simulations.unlearning.munkey import KeyDeletion, SolvedDeletion
from fedmunkey.simulations.unlearning.nearest_neighbours import NearestNeighbours
from fedmunkey.simulations.unlearning.negative_gradient import NegativeGradient
from fedmunkey.simulations.unlearning.nothing import Nothing
from fedmunkey.simulations.unlearning.rapid_retraining import RapidRetraining
from fedmunkey.simulations.unlearning.retraining import Retraining
from fedmunkey.simulations.unlearning.scrub import Scrub
from fedmunkey.simulations.unlearning.sisa import Sisa
from fedmunkey.simulations.unlearning.synaptic_dampening import SynapticDampening

_ALL: tuple[Method[Any], ...] = (
    SolvedDeletion(),
    KeyDeletion(Guarantee.CERTIFIED),
    KeyDeletion(Guarantee.EMPIRICAL),
    NearestNeighbours(),
    Nothing(),
    FineTuning(),
    NegativeGradient(),
    SynapticDampening(),
    Scrub(),
    FedEraser(),
    RapidRetraining(),
    Retraining(),
    Sisa(),
)

METHODS: Mapping[str, Method[Any]] = {method.name: method for method in _ALL}
"""MUNKEY under each guarantee, then what people would use instead."""
