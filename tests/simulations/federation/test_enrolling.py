"""Many hospitals are filled on all cores as they would be one after the other, and share what they are tested on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.client.learning.held_out import SharedHeldOut, held_out_of
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation import enrolling
from fedmunkey.simulations.federation.enrolling import enrol_all, share_held_out
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, share_out
from fedmunkey.simulations.federation.partition import homes_of, partition


@pytest.fixture
def homes(everything: Encoded) -> NDArray[np.int64]:
    return homes_of(everything.records, 3, alpha=1.0, seed=0)


@pytest.fixture
def sharing(everything: Encoded, homes: NDArray[np.int64], settings: Settings) -> list[Hospital]:
    return share_out(everything, homes, 3, Path(settings.sites_dir), shares=True)


def test_hospitals_get_what_the_partition_gives_them_and_no_held_out_record(
    everything: Encoded, sharing: list[Hospital]
) -> None:
    parts = partition(everything.records, 3, alpha=1.0, seed=0)

    for hospital, part in zip(sharing, parts, strict=True):
        train = part.split(Split.TRAIN)
        assert hospital.given.records.record_ids.tolist() == train.record_ids.tolist()
        assert hospital.given.records.images.tobytes() == train.images.tobytes()


def test_shares_are_all_test_records_once_and_the_whole_is_the_same_for_all(
    everything: Encoded, homes: NDArray[np.int64], sharing: list[Hospital]
) -> None:
    test = everything.records.split(Split.TEST).record_ids.tolist()
    whole = share_out(everything, homes, 3, Path(), shares=False)

    assert sorted(name for hospital in sharing for name in hospital.test.records.record_ids.tolist()) == sorted(test)
    assert whole[0].test is whole[1].test
    assert whole[0].test.records.record_ids.tolist() == test


@pytest.mark.processes
@pytest.mark.parametrize("worth", [0, 10_000])
def test_all_records_are_enrolled_here_or_in_other_processes(
    sharing: list[Hospital],
    settings: Settings,
    encoder: Encoder,
    shape: ModelShape,
    secret: FederationSecret,
    monkeypatch: pytest.MonkeyPatch,
    worth: int,
) -> None:
    monkeypatch.setattr(enrolling, "_WORTH_A_PROCESS", worth)
    counted: list[int] = []

    enrol_all(sharing, settings, encoder, shape, secret, cores=2, progress=counted.append)

    assert sum(counted) == 60
    assert len(counted) == (3 if worth == 0 else 1)
    for hospital in sharing:
        with hospital.folder.open() as store:
            assert store.records.count(Split.TRAIN) == len(hospital.given.records)
            assert store.records.count(Split.TEST) == 0
            assert all(store.records.holds(secret.reference(name)) for name in hospital.given.records.record_ids)


def test_held_out_records_are_written_once(
    everything: Encoded,
    open_hospitals: list[Hospital],
    secret: FederationSecret,
    shape: ModelShape,
    tmp_path: Path,
) -> None:
    held_out = everything.select(everything.records.splits != "train")

    share_held_out(held_out, open_hospitals, tmp_path / "shared", secret, shape, shares=True)

    for place, hospital in enumerate(open_hospitals):
        assert held_out_of(hospital.folder.path, 1) == SharedHeldOut(tmp_path / "shared", place, 3, 1)
    assert np.load(tmp_path / "shared" / "labels.npy").tolist() == held_out.records.labels.tolist()
    assert np.load(tmp_path / "shared" / "keys.npy").tolist() == held_out.encoding.keys.tolist()
