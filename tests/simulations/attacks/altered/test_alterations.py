"""Changed images: what each change does, and that records keep everything else."""

from __future__ import annotations

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.altered.alterations import ALTERATIONS, altered
from fedmunkey.simulations.attacks.asking import honest_records
from fedmunkey.simulations.federation.case import Case


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALTERATIONS)
def test_image_is_changed_but_little_and_in_shape(name: str, channels: int) -> None:
    row = np.linspace(0, 255, 28).astype(np.uint8)
    images = np.broadcast_to(row, (2, channels, 28, 28)).copy()

    changed = ALTERATIONS[name](images, np.random.default_rng(0))

    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, images)
    back = changed[:, :, :, ::-1] if name == "mirrored" else changed
    assert np.abs(back.astype(int) - images).mean() < 12


def test_noise_does_not_wrap_around_black_and_white() -> None:
    images = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    images[..., 4:] = 255

    changed = ALTERATIONS["noisy"](images, np.random.default_rng(0))

    assert changed[..., :4].max() < 64
    assert changed[..., 4:].min() > 192


def test_honest_forgotten_and_test_records_are_altered_and_encoded_with_their_labels(case: Case) -> None:
    views = altered(case)

    assert list(views.members) == list(views.others) == list(ALTERATIONS)
    originals = honest_records(case)
    for name in ALTERATIONS:
        assert views.members[name].keys() == originals.keys()
        for site, original in originals.items():
            changed = views.members[name][site]
            assert changed.records.record_ids.tolist() == original.records.record_ids.tolist()
            assert changed.records.labels.tolist() == original.records.labels.tolist()
            assert not np.array_equal(changed.encoding.keys.numpy(), original.encoding.keys.numpy())
            assert set(views.others[name][site].records.splits.tolist()) == {Split.TEST.value}


def test_another_case_is_altered_anew_and_the_same_one_only_once(case: Case) -> None:
    first = altered(case)

    assert altered(case) is first
    assert altered(case.with_seed(5)) is not first
