"""All attacks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedmunkey.simulations.attacks.attack import Attack
from fedmunkey.simulations.attacks.differencing import Differencing
from fedmunkey.simulations.attacks.likelihood_ratio import LikelihoodRatio
from fedmunkey.simulations.attacks.loss_threshold import LossThreshold
from fedmunkey.simulations.attacks.weights_only import WeightsOnly

_ALL: tuple[Attack, ...] = (LossThreshold(), WeightsOnly(), LikelihoodRatio(), Differencing())

ATTACKS: Mapping[str, Attack] = MappingProxyType({attack.name: attack for attack in _ALL})
"""In the order in which they are reported."""
