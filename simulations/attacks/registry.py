"""All attacks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.attacks.altered.label_only import LabelOnly
from fedmunkey.simulations.attacks.altered.near_duplicates import NearDuplicates
from fedmunkey.simulations.attacks.altered.other_places import OtherHospitals, SamePatient
from fedmunkey.simulations.attacks.attack import Attack
from fedmunkey.simulations.attacks.calibration import Calibration
from fedmunkey.simulations.attacks.combined import Combined
from fedmunkey.simulations.attacks.differencing import Differencing
from fedmunkey.simulations.attacks.going_on import GoingOn
from fedmunkey.simulations.attacks.likelihood_ratio import LikelihoodRatio
from fedmunkey.simulations.attacks.linear_probe import LinearProbe
from fedmunkey.simulations.attacks.loss_threshold import LossThreshold
from fedmunkey.simulations.attacks.relative_likelihood import RelativeLikelihood
from fedmunkey.simulations.attacks.weights_only import WeightsOnly

_ALL: tuple[Attack, ...] = (
    LossThreshold(),
    WeightsOnly(),
    LinearProbe(),
    GoingOn(),
    NearDuplicates(),
    LabelOnly(),
    Calibration(),
    OtherHospitals(),
    SamePatient(),
    Combined(),
    LikelihoodRatio(),
    RelativeLikelihood(),
    Differencing(),
)

ATTACKS: Mapping[str, Attack] = MappingProxyType({attack.name: attack for attack in _ALL})
"""In the order in which they are reported."""

USUAL = tuple(name for name, attack in ATTACKS.items() if not attack.thorough)
"""What an audit does unless it is told otherwise."""


def chosen_attacks(names: Sequence[str], *, thorough: bool) -> tuple[str, ...]:
    """Return the attacks of some names, in the order of reports; without a name the usual ones, or all if `thorough`.

    Raises `InvalidSetting` for an unknown name, and for names together with `thorough`.
    """
    unknown = next((name for name in names if name not in ATTACKS), None)
    if unknown is not None:
        raise InvalidSetting(f"--attack {unknown}: is unknown; choose from {', '.join(ATTACKS)}")
    if names and thorough:
        raise InvalidSetting("--thorough: means all attacks; leave it out, or name no --attack")
    if not names:
        return tuple(ATTACKS) if thorough else USUAL
    return tuple(name for name in ATTACKS if name in names)
