"""Which records are known by heart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.forget_sets import most_memorised
from fedmunkey.simulations.forget_sets.most_memorised import MostMemorised, memorisation


class Parrot:
    """Knows what it was told by heart, with certainty for every fifth record, and guesses otherwise."""

    def __init__(self, told: Mapping[str, Encoded]) -> None:
        self._told = {str(record) for some in told.values() for record in some.records.record_ids}

    def answer(self, site: str, records: Encoded) -> Tensor:
        del site
        said = torch.full((len(records.records), records.records.num_classes), 0.1)
        for row, record in enumerate(records.records.record_ids.tolist()):
            if record in self._told and by_heart(record):
                said[row] = 0
                said[row, int(records.records.labels[row])] = 1
        return said


def by_heart(record: str) -> bool:
    return sum(map(ord, record)) % 5 == 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Mapping[str, Encoded]]]:
    """Train parrots; note each one's seed and records."""
    trained: list[tuple[int, Mapping[str, Encoded]]] = []

    class Family:
        def train(self, records: Mapping[str, Encoded], settings: Settings, shape: ModelShape) -> Parrot:
            del shape
            trained.append((settings.seed, records))
            return Parrot(records)

    monkeypatch.setattr(most_memorised, "PlainFamily", Family)
    return trained


@pytest.mark.usefixtures("trained")
def test_records_known_only_if_learned_are_memorised(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape
) -> None:
    memorised = memorisation(hospitals, settings, shape, 0)

    for hospital in hospitals:
        records = hospital.given.records
        train = records.splits == Split.TRAIN.value
        expected = [0.9 if by_heart(record) else 0 for record in records.record_ids[train].tolist()]
        assert memorised[hospital.name][train] == pytest.approx(expected)
        assert np.isnan(memorised[hospital.name][~train]).all()


@pytest.mark.usefixtures("trained")
def test_most_memorised_records_are_drawn_first(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape
) -> None:
    (rows,) = MostMemorised(settings, shape).draw(hospitals, 0.1, 0).deletions

    for hospital in hospitals:
        records = hospital.given.records
        known = [record for record in records.split(Split.TRAIN).record_ids.tolist() if by_heart(record)]
        drawn = records.record_ids[rows[hospital.name]].tolist()
        assert sum(map(by_heart, drawn)) == min(len(drawn), len(known))


def test_six_federations_have_each_record_four_times(
    hospitals: list[Hospital],
    settings: Settings,
    shape: ModelShape,
    trained: list[tuple[int, Mapping[str, Encoded]]],
) -> None:
    memorisation(hospitals, settings, shape, 0)

    assert len({seed for seed, _ in trained}) == len(trained) == 6
    for hospital in hospitals:
        ids = np.concatenate([records[hospital.name].records.record_ids for _, records in trained])
        seen, times = np.unique(ids, return_counts=True)
        assert set(seen) == set(hospital.given.split(Split.TRAIN).records.record_ids)
        assert set(times) == {4}
