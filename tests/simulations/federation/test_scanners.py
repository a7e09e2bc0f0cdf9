import dataclasses

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.federation.scanners import Scanner, as_scanned
from tests.simulations.tiny_hospitals import records_of

IMAGE = np.array([[[[0, 0, 0], [0, 160, 0], [0, 0, 255]]]], dtype=np.uint8)
PLAIN = Scanner(gain=256, offset=0, blur=0)


def test_scanner_that_changes_nothing_gives_the_same_bytes() -> None:
    assert PLAIN.scan(IMAGE).tolist() == IMAGE.tolist()
    assert Scanner.draw(7, 0.0, seed=3) == PLAIN


@pytest.mark.parametrize(
    ("scanner", "expected"),
    [
        (dataclasses.replace(PLAIN, gain=384), [[0, 0, 0], [0, 240, 0], [0, 0, 255]]),
        (dataclasses.replace(PLAIN, offset=-40), [[0, 0, 0], [0, 120, 0], [0, 0, 215]]),
        # (4 * 160 + 255) / 16 in the middle; edges are continued: (160 + 9 * 255) / 16 in the corner.
        (dataclasses.replace(PLAIN, blur=256), [[10, 20, 10], [20, 56, 68], [10, 68, 153]]),
    ],
)
def test_brightness_contrast_and_blur_are_whole_numbers(scanner: Scanner, expected: list[list[int]]) -> None:
    assert scanner.scan(IMAGE)[0, 0].tolist() == expected


def test_records_are_as_their_hospitals_scanners_take_them_and_held_out_ones_by_all_in_turn() -> None:
    dataset = records_of("record", ["train"] * 6 + ["val"] * 2 + ["test"] * 4)
    images = np.random.default_rng(0).integers(0, 256, dataset.images.shape, dtype=np.uint8)
    dataset = dataclasses.replace(dataset, images=images)
    homes = np.array([1, 0, 1, 0, 0, 1] + [-1] * 6)
    scanners = [Scanner.draw(hospital, 0.8, seed=5) for hospital in range(2)]

    scanned = as_scanned(dataset, homes, 2, 0.8, seed=5)

    assert scanners[0] != scanners[1]
    for row, hospital in enumerate([1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1]):
        assert scanned.images[row].tolist() == scanners[hospital].scan(images[row : row + 1])[0].tolist()
    assert scanned.split(Split.TRAIN).record_ids.tolist() == dataset.split(Split.TRAIN).record_ids.tolist()


def test_another_seed_draws_other_scanners_and_strength_their_distance() -> None:
    drawn = [Scanner.draw(2, 1.0, seed) for seed in range(20)]

    assert len(set(drawn)) == len(drawn)
    assert all(128 <= one.gain <= 384 and -48 <= one.offset <= 48 and 0 <= one.blur <= 256 for one in drawn)
    assert max(abs(Scanner.draw(2, 0.1, seed).gain - 256) for seed in range(20)) <= 13
