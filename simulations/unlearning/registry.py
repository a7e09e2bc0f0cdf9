"""All ways to forget, by name, in the order of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.guarantees import Guarantee
from simulations.unlearning.fed_eraser import FedEraser
from simulations.unlearning.fine_tuning import FineTuning
from simulations.unlearning.method import Method
from simulations.unlearning.munkey import KeyDeletion
from simulations.unlearning.nearest_neighbours import NearestNeighbours
from simulations.unlearning.negative_gradient import NegativeGradient
from simulations.unlearning.nothing import Nothing
from simulations.unlearning.rapid_retraining import RapidRetraining
from simulations.unlearning.retraining import Retraining
from simulations.unlearning.scrub import Scrub
from simulations.unlearning.sisa import Sisa
from simulations.unlearning.synaptic_dampening import SynapticDampening

_ALL: tuple[Method[Any], ...] = (
    *(KeyDeletion(guarantee) for guarantee in Guarantee),
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
