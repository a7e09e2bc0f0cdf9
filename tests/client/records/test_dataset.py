from typing import Any

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidDataset


def make(**changes: Any) -> Dataset:
    columns: dict[str, Any] = {
        "images": np.arange(4 * 3 * 2 * 5, dtype=np.uint8).reshape(4, 3, 2, 5),
        "labels": np.array([0, 1, 1, 0]),
        "record_ids": np.array(["a", "b", "c", "d"]),
        "subject_ids": np.array(["p", "p", "q", "r"]),
        "splits": np.array([Split.TRAIN.value, Split.TEST.value, Split.TRAIN.value, Split.VAL.value]),
        "consents": np.full(4, Consent.REVOCABLE.value),
        "class_names": ("healthy", "ill"),
    }
    return Dataset(**{**columns, **changes})


def test_describes_its_records() -> None:
    dataset = make()

    assert len(dataset) == 4
    assert dataset.num_classes == 2
    assert dataset.image_shape == (3, 2, 5)
    assert str(dataset.image_shape) == "3x2x5"


def test_split_returns_its_records_in_order_with_all_their_properties() -> None:
    dataset = make()

    train = dataset.split(Split.TRAIN)

    assert train.record_ids.tolist() == ["a", "c"]
    assert train.subject_ids.tolist() == ["p", "q"]
    assert train.labels.tolist() == [0, 1]
    assert train.splits.tolist() == ["train", "train"]
    assert train.class_names == dataset.class_names
    np.testing.assert_array_equal(train.images, dataset.images[[0, 2]])


def test_selects_by_position_in_the_order_given() -> None:
    assert make().select(np.array([3, 0])).record_ids.tolist() == ["d", "a"]


def test_selection_may_be_empty() -> None:
    empty = make().select(np.zeros(4, dtype=np.bool_))

    assert len(empty) == 0
    assert empty.image_shape == (3, 2, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 1])}, r"differ in number: \[3, 4\]"),
        ({"images": np.zeros((4, 2, 2), dtype=np.uint8)}, r"not \(4, 2, 2\) uint8"),
        ({"images": np.zeros((4, 2, 2, 2), dtype=np.uint8)}, r"not \(4, 2, 2, 2\) uint8"),
        ({"images": np.zeros((4, 1, 2, 2))}, "float64"),
        ({"labels": np.array([0, 1, 2, 0])}, "from 0 to 2, but there are 2 classes"),
        ({"labels": np.array([0, 1, -1, 0])}, "from -1 to 1"),
        ({"record_ids": np.array(["a", "b", "a", "d"])}, "a record id comes more than once"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        make(**changes)
