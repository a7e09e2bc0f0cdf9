"""Which records hospitals were given, cases that forget some of them, and others in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case, Rows
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital


def train_rows(hospital: Hospital) -> NDArray[np.int64]:
    """Return the positions of a hospital's training records."""
    return np.flatnonzero(hospital.given.records.splits == Split.TRAIN.value)


def case_of(hospitals: Sequence[Hospital], rows: Rows, settings: Settings, shape: ModelShape) -> Case:
    """Forget some hospitals' records in one deletion, without canaries."""
    nothing = {hospital.name: train_rows(hospital)[:0] for hospital in hospitals}
    return Case(hospitals, [{**nothing, **rows}], nothing, settings, shape)


def spoil(hospital: Hospital, rows: NDArray[np.int64]) -> Hospital:
    """Return a hospital some of whose records have another label, another image and another key."""
    given = hospital.given
    labels, images = given.records.labels.copy(), given.records.images.copy()
    keys, features = given.encoding.keys.clone(), given.encoding.features.clone()
    labels[rows] = (labels[rows] + 5) % 10
    images[rows] = 255 - images[rows]
    keys[rows] = keys[rows].flip(1)
    features[rows] = features[rows].flip(-1)
    records = dataclasses.replace(given.records, labels=labels, images=images)
    return dataclasses.replace(hospital, given=Encoded(records, Encoding(keys, features)))
