import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDataset
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.simulations.federation.sources import load_dataset


def write(path: Path) -> Path:
    content: dict[str, Any] = {}
    for split, count in {"train": 6, "val": 2, "test": 3}.items():
        content[f"{split}_images"] = np.zeros((count, 4, 5), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    np.savez(path, **content)
    return path


def fault(name: str, data_dir: Path) -> str:
    with pytest.raises(InvalidDataset) as caught:
        load_dataset(name, data_dir=data_dir, seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def medmnist_dataset() -> Any:
    import_torchvision()
    return pytest.importorskip("medmnist.dataset")


def test_digits_are_split_alike_in_every_split() -> None:
    dataset = load_dataset("digits", data_dir=None, seed=0)

    assert [len(dataset.split(split)) for split in Split] == [1347, 90, 360]
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.class_names == tuple("0123456789")
    for split in Split:
        shares = np.bincount(dataset.split(split).labels) / len(dataset.split(split))
        assert 0.08 < shares.min() <= shares.max() < 0.12
    # The whole range of brightness, and each digit its own subject.
    assert (dataset.images.min(), dataset.images.max()) == (0, 255)
    assert len(np.unique(dataset.images)) == 17
    assert len(set(dataset.subject_ids)) == len(dataset)


def test_seed_decides_how_digits_are_split_and_nothing_else() -> None:
    first, same, other = (load_dataset("digits", data_dir=None, seed=seed) for seed in (1, 1, 2))

    assert first.splits.tolist() == same.splits.tolist()
    assert first.splits.tolist() != other.splits.tolist()
    assert first.record_ids.tolist() == other.record_ids.tolist()


@pytest.mark.parametrize("file_name", ["set.npz", "no_suffix"])
def test_path_is_read_as_a_file_and_one_that_is_absent_is_named(tmp_path: Path, file_name: str) -> None:
    path = write(tmp_path / "set.npz").rename(tmp_path / file_name)

    assert len(load_dataset(str(path), data_dir=None, seed=0)) == 11
    assert f"{tmp_path}/absent.npz: there is no such file" in fault(f"{tmp_path}/absent.npz", tmp_path)


def test_file_in_the_data_folder_is_found_by_name_without_medmnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "medmnist.dataset", None)
    write(tmp_path / "breastmnist.npz")

    assert load_dataset("breastmnist", data_dir=tmp_path, seed=0).class_names == ("0", "1")


@pytest.mark.parametrize(("name", "meant"), [("breastmnist", ""), ("digit", "(did you mean digits?)")])
def test_missing_medmnist_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setitem(sys.modules, "medmnist.dataset", None)

    message = fault(name, tmp_path)

    assert meant in message
    assert "pip install 'fedmunkey[medmnist]'" in message


@pytest.mark.usefixtures("medmnist_dataset")
def test_medmnist_set_in_the_data_folder_gets_its_class_names(tmp_path: Path) -> None:
    write(tmp_path / "breastmnist.npz")

    dataset = load_dataset("breastmnist", data_dir=tmp_path, seed=0)

    assert dataset.class_names == ("malignant", "normal, benign")


def test_medmnist_set_is_downloaded_once_into_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medmnist_dataset: Any
) -> None:
    downloads = []

    def download(self: Any) -> None:
        downloads.append(self.flag)
        write(Path(self.root) / f"{self.flag}.npz")

    monkeypatch.setattr(medmnist_dataset.MedMNIST, "download", download)
    folder = tmp_path / "made" / "here"

    first = load_dataset("pneumoniamnist", data_dir=folder, seed=0)
    second = load_dataset("pneumoniamnist", data_dir=folder, seed=0)

    assert first.class_names == second.class_names == ("normal", "pneumonia")
    assert downloads == ["pneumoniamnist"]
    assert [path.name for path in folder.iterdir()] == ["pneumoniamnist.npz"]


def test_failed_download_names_its_cause_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medmnist_dataset: Any
) -> None:
    def download(self: Any) -> None:
        (Path(self.root) / "breastmnist.npz").write_bytes(b"half of it")
        try:
            raise OSError("no route to host")
        except OSError:
            raise RuntimeError("\n  Automatic download failed!\n  many\n  lines")  # noqa: B904

    monkeypatch.setattr(medmnist_dataset.MedMNIST, "download", download)

    message = fault("breastmnist", tmp_path)

    assert "breastmnist could not be downloaded" in message
    assert "(no route to host)" in message
    assert "give the file's path" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("medmnist_dataset")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("chestmnist", "more than one label a record"), ("organmnist3d", "volumes in place of images")],
)
def test_medmnist_sets_that_are_not_supported_say_why(tmp_path: Path, name: str, reason: str) -> None:
    message = fault(name, tmp_path)

    assert reason in message
    assert "choose from pathmnist, dermamnist" in message


@pytest.mark.usefixtures("medmnist_dataset")
def test_file_with_more_classes_than_the_medmnist_set_of_its_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "breastmnist.npz")
    with np.load(path) as content:
        np.savez(path, **{**content, "train_labels": np.arange(6)})

    assert "has 6 classes, but breastmnist has 2" in fault("breastmnist", tmp_path)


@pytest.mark.usefixtures("medmnist_dataset")
def test_unknown_name_suggests_a_close_one_and_lists_the_ways(tmp_path: Path) -> None:
    message = fault("brestmnist", tmp_path)

    assert "unknown data set 'brestmnist' (did you mean breastmnist?)" in message
    assert "digits, pathmnist, " in message
    assert "the path of an .npz file" in message
    assert "chestmnist" not in message
