"""Array files at a site: what records are called that the file leaves unnamed, and what is refused or said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmunkey.client.importing import array_records
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, DeletionRequest, Records, Subject, Target

from .conftest import OTHER, SITE, Run

TRAIN, TEST = 12, 4
Arrays = Mapping[str, NDArray[Any]]


def write(path: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a data set of two classes without ids."""
    random = np.random.default_rng(seed)
    arrays: dict[str, Any] = {
        "train_images": random.integers(0, 256, (TRAIN, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(TRAIN) % 2,
        "test_images": random.integers(0, 256, (TEST, 8, 8), dtype=np.uint8),
        "test_labels": np.arange(TEST) % 2,
        **changes,
    }
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


def numbered(first: int = 0) -> dict[str, Any]:
    """Return subjects by number, two training records of each."""
    return {"train_subjects": first + np.arange(TRAIN) // 2, "test_subjects": first + 100 + np.arange(TEST)}


def enrol(site: str, data: Path, *words: object) -> list[object]:
    folder, secret = data.parent / site, data.parent / "federation.secret"
    return ["enrol", "--site-dir", folder, "--site", site, "--data", data, "--secret", secret, *words]


def held(folder: Path) -> dict[str, str]:
    """Return the subject of each record of a site."""
    found: dict[str, str] = {}
    with SiteFolder(folder).open() as store:
        for split in Split:
            found.update(store.records.read_ids(store.records.read_entries(split)[0]))
    return found


def delete(folder: Path, target: Target) -> int:
    with SiteFolder(folder).open() as store:
        order = DeletionOrder(store.orders.last + 1, folder.name, DeletionRequest("request-1", OFFICER, target))
        return store.orders.apply(order).records


def formerly(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have array files enrolled under the names of their rows, as before."""
    monkeypatch.setattr(array_records.ArrayRecords, "named", lambda self, _: self.found.dataset)
    return monkeypatch


def test_names_of_two_sites_are_never_the_same(run: Run, secret: Path, tmp_path: Path) -> None:
    for number, site in enumerate((SITE, OTHER)):
        run(*enrol(site, write(tmp_path / f"{site}.npz", number, **numbered())))

    one, two = held(tmp_path / SITE), held(tmp_path / OTHER)
    assert set(one).isdisjoint(two)
    assert set(one.values()).isdisjoint(two.values())
    assert all(re.fullmatch(f"{SITE}-[0-9a-f]{{16}}", name) for name in one)
    assert f"{SITE}-subject-4" in one.values()
    reference = FederationSecret.read(secret).reference
    assert delete(tmp_path / OTHER, Subject(reference(f"{SITE}-subject-4"))) == 0
    assert delete(tmp_path / SITE, Subject(reference(f"{SITE}-subject-4"))) == 2


def test_picture_decides_whether_a_record_is_known(run: Run, secret: Path, tmp_path: Path) -> None:
    first, second = write(tmp_path / "first.npz"), write(tmp_path / "second.npz", 1)

    added = run(*enrol(SITE, first), "--json").json
    other = run(*enrol(SITE, second), "--json").json
    again = run(*enrol(SITE, first), "--json").json

    assert [(shown["added"], shown["known"]) for shown in (added, other, again)] == [(16, 0), (16, 0), (0, 16)]
    assert secret.exists()


def test_rows_may_move_within_a_file(run: Run, secret: Path, tmp_path: Path) -> None:
    first = write(tmp_path / "first.npz")
    run(*enrol(SITE, first))
    with np.load(first) as arrays:
        turned = {name: arrays[name][::-1] for name in ("train_images", "train_labels")}

    assert run(*enrol(SITE, write(tmp_path / "turned.npz", **turned)), "--json").json["known"] == 16
    assert secret.exists()


def test_same_picture_in_one_file_is_said_and_told_apart(run: Run, secret: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (TRAIN, 8, 8), dtype=np.uint8)
    images[3] = images[0]
    test = np.random.default_rng(6).integers(0, 256, (TEST, 8, 8), dtype=np.uint8)
    test[1] = images[7]
    labels = np.zeros(TRAIN, dtype=np.int64)
    data = write(tmp_path / "scans.npz", train_images=images, test_images=test, train_labels=labels)

    shown = run(*enrol(SITE, data), "--json").json

    assert shown["added"] == 16
    assert {each["notice"]: each["rows"] for each in shown["notices"]} == {
        "same-picture": ["train-0", "train-3"],
        "picture-in-two-splits": ["train-7", "test-1"],
    }
    assert len({name for name in held(tmp_path / SITE) if name.endswith("-2")}) == 2
    assert secret.exists()


def test_what_a_site_holds_under_a_former_name_keeps_it(
    run: Run, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "scans.npz", **numbered())
    with monkeypatch.context() as before:
        formerly(before)
        run(*enrol(SITE, data))
    assert held(tmp_path / SITE)["train-4"] == "subject-2"

    again = run(*enrol(SITE, data), "--json").json
    more = run(*enrol(SITE, write(tmp_path / "more.npz", 1, **numbered(5))), "--json").json
    verified = run("verify-exact", "--site-dir", tmp_path / SITE, "--data", data, "--data", tmp_path / "more.npz")

    assert (again["added"], again["known"], more["added"]) == (0, 16, 16)
    names = held(tmp_path / SITE)
    # Five is a patient whom the site has under a former name; eleven came later.
    assert {subject for name, subject in names.items() if name.startswith(SITE)} >= {"subject-5", f"{SITE}-subject-8"}
    assert verified.code == 0
    assert secret.exists()


@pytest.mark.parametrize("target", ["record", "subject"])
def test_deleted_under_a_former_name_stays_deleted(
    run: Run, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    data = write(tmp_path / "scans.npz", **numbered())
    with monkeypatch.context() as before:
        formerly(before)
        run(*enrol(SITE, data))
    reference = FederationSecret.read(secret).reference
    named = Records(frozenset({reference("train-4")}), SITE) if target == "record" else Subject(reference("subject-2"))
    count = delete(tmp_path / SITE, named)

    shown = run(*enrol(SITE, data), "--json").json
    verified = run("verify-exact", "--site-dir", tmp_path / SITE, "--data", data)

    assert (shown["added"], shown["refused"], shown["known"]) == (0, count, 16 - count)
    assert verified.code == 0


def test_ids_shows_what_to_type(run: Run, secret: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "scans.npz", **numbered())
    run(*enrol(SITE, data))

    (shown,) = run("ids", "--site-dir", tmp_path / SITE, "--data", data, "--row", "train-5", "--json").json["rows"]
    table = run("ids", "--site-dir", tmp_path / SITE, "--data", data).out
    deleted = delete(
        tmp_path / SITE, Records(frozenset({FederationSecret.read(secret).reference(shown["record"])}), SITE)
    )
    after = run("ids", "--site-dir", tmp_path / SITE, "--data", data, "--row", "train-5", "--json").json["rows"][0]

    assert shown == {"row": "train-5", "record": shown["record"], "subject": f"{SITE}-subject-2", "held": True}
    assert shown["record"] in table
    assert "test-3" in table
    assert deleted == 1
    assert after == {**shown, "held": False}
    assert (
        "--row train-99 is no row"
        in run("ids", "--site-dir", tmp_path / SITE, "--data", data, "--row", "train-99").error
    )


def test_status_says_what_to_type(run: Run, secret: Path, tmp_path: Path) -> None:
    run(*enrol(SITE, write(tmp_path / "scans.npz")))

    shown = run("status", "--site-dir", tmp_path / SITE).out

    assert f"{SITE}-subject-7" in shown
    assert "munkey-client ids --data FILE" in shown
    assert secret.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_subjects": np.arange(TRAIN), "test_subjects": 8 + np.arange(TEST)},
            "are of a subject that is in another",
        ),
        ({"train_ids": np.array(["nan", *map(str, range(1, TRAIN))])}, "says that their place in ids is not known"),
        ({"train_subjects": np.array(["unknown"] * TRAIN)}, "says that their place in subjects is not known"),
        ({"train_ids": np.array(["1.23457E+12", *map(str, range(1, TRAIN))])}, "has a rounded number"),
        ({"train_ids": np.array(["7.0", *map(str, range(1, TRAIN))])}, "a record id comes more than once"),
        (
            {"train_labels": 1 + np.arange(TRAIN) % 2, "test_labels": np.ones(TEST, int)},
            "are numbers from 1, but classes",
        ),
        ({"class_names": np.array(["benign", "Benign"])}, "class_names hold a name twice"),
    ],
)
def test_file_with_names_that_say_nothing_is_refused_whole(
    run: Run, secret: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert message in run(*enrol(SITE, write(tmp_path / "scans.npz", **changes))).error
    assert not (tmp_path / SITE).exists()
    assert secret.exists()


def given_ids() -> dict[str, Any]:
    return {
        "train_ids": np.array([f"scan-{row}" for row in range(TRAIN)]),
        "test_ids": np.array([f"test-scan-{row}" for row in range(TEST)]),
    }


@pytest.mark.parametrize("what", ["picture", "label", "subject"])
def test_record_that_the_site_holds_otherwise_is_refused(run: Run, secret: Path, tmp_path: Path, what: str) -> None:
    data = write(tmp_path / "scans.npz", **given_ids())
    run(*enrol(SITE, data))
    before = (tmp_path / SITE / "keystore.sqlite").read_bytes()
    with np.load(data) as arrays:
        images, labels = arrays["train_images"].copy(), arrays["train_labels"].copy()
    changes: dict[str, Any] = given_ids() | {"train_images": images, "train_labels": labels}
    if what == "picture":
        images[2] ^= 255
    elif what == "label":
        labels[2] ^= 1
    else:
        changes["train_subjects"] = np.array([f"scan-{row}" if row != 2 else "another" for row in range(TRAIN)])

    error = run(*enrol(SITE, write(tmp_path / "changed.npz", **changes))).error

    assert "1 record (train-2) has the id of a record that the site holds with another picture, label" in error
    assert (tmp_path / SITE / "keystore.sqlite").read_bytes() == before
    assert secret.exists()


def test_subject_that_the_site_holds_in_another_split_is_refused(run: Run, secret: Path, tmp_path: Path) -> None:
    run(*enrol(SITE, write(tmp_path / "scans.npz", **numbered())))

    error = run(*enrol(SITE, write(tmp_path / "more.npz", 1, **numbered(100)))).error

    assert "subject that is in another split as well, here or at the site" in error
    assert secret.exists()


def test_names_of_classes_are_kept_and_shown(run: Run, secret: Path, tmp_path: Path) -> None:
    named: dict[str, Any] = {"class_names": np.array(["benign", "malignant"])}
    run(*enrol(SITE, write(tmp_path / "scans.npz", **named)))
    shutil.copy(tmp_path / SITE / "pictures.json", tmp_path / "before.json")
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "new.png")
    predicted = run("predict", tmp_path / "new.png", "--site-dir", tmp_path / SITE, "--json").json
    again = run(*enrol(SITE, write(tmp_path / "more.npz", 1))).code

    assert set(predicted["predictions"][0]["probabilities"]) == {"benign", "malignant"}
    assert json.loads((tmp_path / SITE / "pictures.json").read_text())["classes"] == ["benign", "malignant"]
    assert again == 0
    assert (tmp_path / SITE / "pictures.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    assert secret.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": np.array(["malignant", "benign"])}, "the site's classes are benign, malignant; number its"),
        ({"train_labels": np.arange(TRAIN) % 3}, "there are 3 classes, and the site has benign, malignant"),
    ],
)
def test_other_classes_than_the_sites_are_refused(
    run: Run, secret: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    run(*enrol(SITE, write(tmp_path / "scans.npz", class_names=np.array(["benign", "malignant"]))))

    assert message in run(*enrol(SITE, write(tmp_path / "more.npz", 1, **changes))).error
    assert secret.exists()


def test_classes_may_be_added_by_a_file(run: Run, secret: Path, tmp_path: Path) -> None:
    run(*enrol(SITE, write(tmp_path / "scans.npz", class_names=np.array(["benign", "malignant"]))))
    three = {"class_names": np.array(["benign", "malignant", "unclear"]), "train_labels": np.arange(TRAIN) % 3}

    assert run(*enrol(SITE, write(tmp_path / "more.npz", 1, **three))).code == 0
    classes = json.loads((tmp_path / SITE / "pictures.json").read_text())["classes"]
    assert classes == ["benign", "malignant", "unclear"]
    assert secret.exists()


def test_other_splits_names_are_the_datasets(tmp_path: Path) -> None:
    from fedmunkey.client.records.medmnist_files import read_array_file

    found = read_array_file(write(tmp_path / "scans.npz", **numbered()))

    assert isinstance(found.dataset, Dataset)
    assert found.rows[[0, TRAIN, TRAIN + 1]].tolist() == ["train-0", "test-0", "test-1"]
    assert found.unnamed.all()
    assert found.numbered.all()
    assert not found.alone.any()
