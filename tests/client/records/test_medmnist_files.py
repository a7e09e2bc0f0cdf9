import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.records import medmnist_files
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.client.records.medmnist_files import read_npz
from fedmunkey.common.errors import InvalidDataset

BREASTMNIST = Path(__file__).parents[4] / "shared/data/breastmnist.npz"
COUNTS = {"train": 6, "val": 2, "test": 3}


def arrays(*size: int, **changes: Any) -> dict[str, Any]:
    """Return the arrays of a small data set; a change to None leaves the array out."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for split, count in COUNTS.items():
        found[f"{split}_images"] = generator.integers(0, 256, (count, *(size or (4, 5))), dtype=np.uint8)
        found[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    return {name: array for name, array in {**found, **changes}.items() if array is not None}


def write(folder: Path, *, compressed: bool = True, **content: Any) -> Path:
    path = folder / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


def fault(path: Path) -> str:
    """Return the message with which the file is refused, having checked that it is one line that names the file."""
    with pytest.raises(InvalidDataset) as caught:
        read_npz(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    return message


def test_splits_follow_each_other_with_their_own_images_and_labels(tmp_path: Path) -> None:
    content = arrays()

    dataset = read_npz(write(tmp_path, **content))

    assert len(dataset) == 11
    assert dataset.image_shape == (1, 4, 5)
    for split in Split:
        part = dataset.split(split)
        np.testing.assert_array_equal(part.images[:, 0], content[f"{split}_images"])
        np.testing.assert_array_equal(part.labels, content[f"{split}_labels"][:, 0])
    assert dataset.class_names == ("0", "1")
    assert set(dataset.consents) == {"revocable"}


def test_sources_are_read_where_training_has_them_and_go_with_their_records(tmp_path: Path) -> None:
    sources = {"train_sources": np.array([3, 3, 4, 4, 5, 5]), "test_sources": np.array(["north", "south", "north"])}

    dataset = read_npz(write(tmp_path, **arrays(**sources)))
    without = read_npz(write(tmp_path, **arrays(test_sources=sources["test_sources"])))

    assert dataset.sources is not None
    assert dataset.sources.tolist() == [*(f"source-{n}" for n in (3, 3, 4, 4, 5, 5)), "", "", "north", "south", "north"]
    chosen = dataset.select(np.array([9, 2])).sources
    assert chosen is not None
    assert chosen.tolist() == ["south", "source-4"]
    assert without.sources is None


def test_colour_images_become_channels_first(tmp_path: Path) -> None:
    content = arrays(4, 5, 3)

    dataset = read_npz(write(tmp_path, **content))

    assert dataset.image_shape == (3, 4, 5)
    np.testing.assert_array_equal(dataset.images[1, 2], content["train_images"][1, :, :, 2])
    assert dataset.images.flags.c_contiguous


def test_record_without_ids_is_named_by_its_row_and_is_its_own_subject(tmp_path: Path) -> None:
    dataset = read_npz(write(tmp_path, **arrays()))

    assert dataset.record_ids[[0, 5, 6, 8]].tolist() == ["train-0", "train-5", "val-0", "test-0"]
    assert dataset.subject_ids.tolist() == dataset.record_ids.tolist()


def test_same_number_in_two_splits_is_the_same_subject(tmp_path: Path) -> None:
    subjects = {"train_subjects": np.array([7, 7, 8, 8, 9, 9]), "test_subjects": np.array([9, 7, 1])}

    dataset = read_npz(write(tmp_path, **arrays(**subjects)))

    assert dataset.split(Split.TRAIN).subject_ids[0] == "subject-7"
    assert dataset.split(Split.TEST).subject_ids.tolist() == ["subject-9", "subject-7", "subject-1"]
    assert dataset.split(Split.VAL).subject_ids.tolist() == ["val-0", "val-1"]


def test_consent_may_be_given_for_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, **arrays(train_consents=np.array(["revocable", *["permanent"] * 5])))

    dataset = read_npz(path, consent=Consent.PERMANENT)

    assert dataset.split(Split.TRAIN).consents.tolist() == ["revocable", *["permanent"] * 5]
    assert set(dataset.split(Split.TEST).consents) == {"permanent"}


def test_names_in_the_file_are_kept(tmp_path: Path) -> None:
    content = arrays(
        train_ids=np.array(list("abcdef")),
        train_subjects=np.array(["P1", "P1", "P2", "P2", "P3", "P3"]),
        train_consents=np.array(["permanent", *["revocable"] * 5]),
        class_names=np.array(["malignant", "benign"]),
    )

    dataset = read_npz(write(tmp_path, **content))

    assert dataset.record_ids[:7].tolist() == [*"abcdef", "val-0"]
    assert dataset.subject_ids[:3].tolist() == ["P1", "P1", "P2"]
    assert dataset.consents[:2].tolist() == ["permanent", "revocable"]
    assert dataset.class_names == ("malignant", "benign")


@pytest.mark.parametrize(
    "changes",
    [
        {"val_images": None, "val_labels": None},
        {"val_images": np.zeros((0, 4, 5), dtype=np.uint8), "val_labels": np.zeros((0, 1), dtype=np.uint8)},
    ],
)
def test_validation_split_may_be_missing_or_empty(tmp_path: Path, changes: dict[str, Any]) -> None:
    dataset = read_npz(write(tmp_path, **arrays(**changes)))

    assert len(dataset.split(Split.VAL)) == 0
    assert len(dataset) == 9


def test_labels_may_be_a_plain_column(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 0, 1, 2], dtype=np.int32)

    dataset = read_npz(write(tmp_path, **arrays(train_labels=labels)))

    assert dataset.split(Split.TRAIN).labels.tolist() == labels.tolist()
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels", "val_images"])
def test_missing_array_is_named(tmp_path: Path, name: str) -> None:
    assert f"lacks the array {name};" in fault(write(tmp_path, **arrays(**{name: None})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.zeros((5, 1), dtype=np.uint8)}, "there are 6 train_images for 5 labels"),
        ({"test_subjects": np.arange(2)}, "there are 2 test_subjects for 3 labels"),
        ({"train_images": np.zeros((6, 4, 5))}, "train_images are float64; images must be uint8"),
        ({"train_labels": np.zeros(6)}, "train_labels are float64; labels must be whole numbers"),
        ({"train_labels": np.zeros((6, 14), dtype=np.uint8)}, "train_labels give 14 labels to each record"),
        ({"train_labels": np.zeros((6, 0), dtype=np.uint8)}, "train_labels give 0 labels to each record"),
        ({"train_labels": np.uint8(1)}, r"train_labels have the shape ()"),
        ({"train_labels": np.array([0, 1, -1, 0, 0, 0])}, "labels reach from -1 to 1"),
        ({"train_labels": np.array([0, 1, 2_000_000_000, 0, 0, 0])}, "label 2000000000 is no class index"),
        ({"class_names": np.array(["only one"])}, "there are 1 classes"),
        ({"class_names": np.array([1, 2])}, "class_names are int64; write them as an array of strings"),
        ({"train_images": np.zeros((6, 4, 5, 7), dtype=np.uint8)}, "volumes are not supported"),
        ({"train_images": np.zeros((6, 20), dtype=np.uint8)}, "train_images have the shape (6, 20)"),
        ({"train_images": np.zeros((6, 0, 5), dtype=np.uint8)}, "an image needs at least one pixel"),
        ({"test_images": np.zeros((3, 9, 5), dtype=np.uint8)}, "are 1x9x5, but the first split's are 1x4x5"),
        ({"train_subjects": np.arange(6.0)}, "train_subjects are float64"),
        ({"train_sources": np.arange(5)}, "there are 5 train_sources for 6 labels"),
        ({"train_sources": np.arange(6.0)}, "train_sources are float64"),
        ({"train_subjects": np.zeros((6, 2), dtype=np.int64)}, "train_subjects have the shape (6, 2)"),
        ({"train_subjects": np.array(["p", "", "", "q", "r", "s"])}, "train_subjects are empty in row 1"),
        ({"train_ids": np.array(["a"] * 6)}, "a record id comes more than once"),
        ({"train_consents": np.array(["permanent", "maybe"] * 3)}, "'maybe'; a consent is one of revocable, permane"),
        ({"train_consents": np.ones(6, dtype=np.uint8)}, "train_consents are uint8"),
        ({"train_ids": np.array(list("abcdef"), dtype=object)}, "train_ids are Python objects"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in fault(write(tmp_path, **arrays(**changes)))


def test_set_without_training_records_is_refused(tmp_path: Path) -> None:
    empty = {"train_images": np.zeros((0, 4, 5), dtype=np.uint8), "train_labels": np.zeros((0, 1), dtype=np.uint8)}

    assert "holds no training record" in fault(write(tmp_path, **arrays(**empty)))


def test_refusal_names_no_patient(tmp_path: Path) -> None:
    content = arrays(train_ids=np.array(["doe-1"] * 6), train_subjects=np.array(["doe"] * 6))

    assert "doe" not in fault(write(tmp_path, **content)).removeprefix(str(tmp_path))


def test_absent_file_is_refused(tmp_path: Path) -> None:
    assert "there is no such file" in fault(tmp_path / "absent.npz")
    assert "there is no such file" in fault(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 and no more"])
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(content)

    assert "not an .npz file" in fault(path)


def test_single_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))

    assert "not an .npz file" in fault(path)


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_file_is_refused(tmp_path: Path, kept: float, compressed: bool) -> None:
    path = write(tmp_path, compressed=compressed, **arrays(28, 28))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    assert "cut short" in fault(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_overwritten_pixels_are_noticed(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path, compressed=compressed, **arrays(28, 28))
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("train_images.npy").header_offset + 500
    content = bytearray(path.read_bytes())
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)

    assert "the array train_images is damaged" in fault(path)


@pytest.mark.parametrize("length", [0, 5, 60, 200, 2000])
def test_array_that_ends_early_or_late_inside_an_intact_archive_is_refused(tmp_path: Path, length: int) -> None:
    path = write(tmp_path, **arrays(train_images=None))
    whole = tmp_path / "whole.npy"
    np.save(whole, arrays()["train_images"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", (whole.read_bytes() + bytes(2000))[:length])

    assert "the array train_images is damaged" in fault(path)


def test_array_that_would_not_fit_into_memory_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, **arrays(64, 64))
    monkeypatch.setattr(medmnist_files, "_MOST_UNPACKED", 10_000)

    assert "train_images become" in fault(path)
    assert "more than fit into this machine's memory" in fault(path)


@pytest.mark.skipif(not BREASTMNIST.is_file(), reason="needs the shared copy of BreastMNIST")
def test_reads_a_copy_of_breastmnist() -> None:
    dataset = read_npz(BREASTMNIST)

    assert [len(dataset.split(split)) for split in Split] == [546, 78, 156]
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.class_names == ("0", "1")
