"""How forget sets draw: a share of each hospital's training records from those whose consent may be withdrawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.case import Rows
from fedmunkey.simulations.federation.hospitals import Hospital


def is_train(hospital: Hospital) -> NDArray[np.bool_]:
    """Return which of a hospital's records train."""
    mask: NDArray[np.bool_] = hospital.given.records.splits == Split.TRAIN.value
    return mask


def is_withdrawable(hospital: Hospital) -> NDArray[np.bool_]:
    """Return which of a hospital's records train and have a consent that may be withdrawn."""
    mask: NDArray[np.bool_] = is_train(hospital) & (hospital.given.records.consents == Consent.REVOCABLE.value)
    return mask


def amounts(hospitals: Sequence[Hospital], share: float) -> dict[str, int]:
    """Return how many records each hospital is to forget: a share of its training records, rounded.

    Raises `InvalidDeletion` if the share is not in (0, 1), comes to nothing at every hospital, to all training records
    of one, or to more than may be withdrawn.
    """
    if not 0 < share < 1:
        raise InvalidDeletion(f"{share:g} of the records cannot be forgotten; give a share between 0 and 1")
    asked = {hospital.name: round(share * int(is_train(hospital).sum())) for hospital in hospitals}
    if not any(asked.values()):
        raise InvalidDeletion(f"{share:.3g} of the records is none at any hospital; forget a larger share")
    for hospital in hospitals:
        count, may_go = asked[hospital.name], int(is_withdrawable(hospital).sum())
        if count > may_go:
            raise InvalidDeletion(
                f"{count} records of {hospital.name} cannot be forgotten, only {may_go} may be; "
                "forget fewer, or make fewer permanent"
            )
        check_some_stay(hospital, count)
    return asked


def check_some_stay(hospital: Hospital, count: int) -> None:
    """Raise InvalidDeletion if a hospital has no training record left when so many are forgotten."""
    if 0 < count >= int(is_train(hospital).sum()):
        raise InvalidDeletion(f"forgetting {count} records leaves {hospital.name} no training record; forget fewer")


def draw_random(hospitals: Sequence[Hospital], share: float, seed: int) -> dict[str, NDArray[np.int64]]:
    """Draw a share of each hospital's training records uniformly; return ascending positions.

    Raises `InvalidDeletion` as `amounts` does.
    """
    asked, drawn = amounts(hospitals, share), {}
    for hospital in hospitals:
        generator = np.random.default_rng(derive_seed(seed, "forget", hospital.name))
        may_go = np.flatnonzero(is_withdrawable(hospital))
        drawn[hospital.name] = np.sort(generator.choice(may_go, asked[hospital.name], replace=False))
    return drawn


def nothing(hospitals: Sequence[Hospital]) -> Rows:
    """Return no record of any hospital."""
    return {hospital.name: np.empty(0, dtype=np.int64) for hospital in hospitals}


def shuffled_parts(rows: Rows, sizes: Sequence[int], seed: int) -> list[dict[str, NDArray[np.int64]]]:
    """Divide records of all hospitals together at random into parts of given sizes, which add up to all of them."""
    sites = np.repeat(np.arange(len(rows)), [len(some) for some in rows.values()])
    everything = np.concatenate([np.empty(0, dtype=np.int64), *rows.values()])
    order = np.random.default_rng(seed).permutation(len(everything))
    divided = []
    for places in np.split(order, np.cumsum(sizes)[:-1]):
        mine = [places[sites[places] == site] for site in range(len(rows))]
        divided.append({name: np.sort(everything[some]) for name, some in zip(rows, mine, strict=True)})
    return divided
