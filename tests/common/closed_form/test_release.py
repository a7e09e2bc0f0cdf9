"""What a round gives out, on disk and back, and what is no release."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.release import Release, is_release, read_release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, Choice, left_out_weights, shared_weights
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.settings.settings import ImagePath
from tests.common.closed_form.conftest import CLASSES, SIZE, numbered, summed

READ = FeatureMap((0, 0), SIZE - 1)
CHOICE = Choice(RIDGES[4], TEMPERATURES[2], 0.9, 0.3)


@pytest.fixture
def release() -> Release:
    sums = summed(*numbered(50))
    return Release(
        shared_weights(sums, RIDGES[4]), left_out_weights(sums)[4], CHOICE, READ, "descriptor", {"records": 50}
    )


@pytest.fixture
def path(release: Release, tmp_path: Path) -> Path:
    write_release(tmp_path / "last.safetensors", release)
    return tmp_path / "last.safetensors"


def test_release_comes_back(release: Release, path: Path) -> None:
    found = read_release(path, feature_map=READ, encoder="descriptor")

    assert is_release(path)
    assert found.digest() == release.digest()
    assert (found.choice, found.feature_map, found.about) == (CHOICE, READ, {"records": 50})
    assert all(np.array_equal(array, release.arrays()[name]) for name, array in found.arrays().items())


def test_digest_is_of_all_that_decides_an_answer(release: Release) -> None:
    moved = release.weights.copy()
    moved[2, 1] += 1
    unseen = release.left_out.copy()
    unseen[1, 2, 1] += 1
    others = [
        replace(release, weights=moved),
        replace(release, left_out=unseen),
        replace(release, choice=replace(CHOICE, ridge=RIDGES[5])),
        replace(release, choice=replace(CHOICE, temperature=TEMPERATURES[3])),
        replace(release, feature_map=FeatureMap((1, SIZE - 1), 0)),
        replace(release, encoder="resnet18"),
    ]

    assert len({release.digest(), *(other.digest() for other in others)}) == 7
    assert replace(release, about={}).digest() == release.digest()
    assert replace(release, choice=replace(CHOICE, accuracy=math.nan)).digest() == release.digest()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": np.zeros((SIZE + 1, CLASSES), np.int32)}, "are not those of records with 6 numbers"),
        ({"weights": np.zeros(SIZE, np.int32)}, "are not those of records with 6 numbers"),
        ({"left_out": np.zeros((SIZE, CLASSES), np.int32)}, "are not those of records with 6 numbers"),
        ({"left_out": np.zeros((0, SIZE, CLASSES), np.int32)}, "are not those of records with 6 numbers"),
        ({"left_out": np.zeros((FOLDS, SIZE, CLASSES + 1), np.int32)}, "are not those of records with 6 numbers"),
        ({"weights": np.zeros((SIZE, CLASSES), np.int64)}, "weights are whole numbers of 32 bits"),
        ({"left_out": np.zeros((FOLDS, SIZE, CLASSES))}, "weights are whole numbers of 32 bits"),
        ({"weights": np.full((SIZE, CLASSES), 0.5)}, "weights are whole numbers of 32 bits"),
        ({"choice": replace(CHOICE, ridge=0.0)}, "nobody chooses a ridge of 0.0"),
        ({"choice": replace(CHOICE, ridge=math.nan)}, "nobody chooses a ridge of nan"),
        ({"choice": replace(CHOICE, temperature=1.0)}, "nobody chooses a ridge of .* at temperature 1.0"),
    ],
)
def test_what_is_no_release_is_refused(release: Release, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidWeights, match=reason):
        replace(release, **changes)


def test_weights_with_which_scores_are_not_exact_are_refused() -> None:
    read, many = FeatureMap((0, 0), 2**9 - 1), np.full((2**9, 2), 2**30, dtype=np.int32)

    with pytest.raises(InvalidWeights, match="too large"):
        Release(many, np.zeros((FOLDS, 2**9, 2), dtype=np.int32), CHOICE, read, "descriptor", {})


@pytest.mark.parametrize(
    ("arrays", "choice"),
    [
        ({}, vars(CHOICE)),
        ({"weights": np.zeros((SIZE, CLASSES), np.int32)}, vars(CHOICE)),
        (None, {}),
        (None, {**vars(CHOICE), "ridge": "much"}),
        (None, {**vars(CHOICE), "ridge": None}),
        (None, [1, 2]),
        (None, "text"),
        (None, None),
    ],
)
def test_release_with_a_field_missing_is_refused(release: Release, arrays: Any, choice: Any) -> None:
    given = release.arrays() if arrays is None else arrays

    with pytest.raises(InvalidWeights, match="a field of the released weights is missing or of another kind"):
        Release.of_arrays(given, choice, READ, "descriptor", {})


def test_nothing_is_known_before_the_first_round() -> None:
    nothing = Release.nothing(READ, CLASSES, "descriptor")

    assert (nothing.classes, nothing.folds) == (CLASSES, FOLDS)
    assert not nothing.weights.any()
    assert not nothing.left_out.any()


# Files.


def rewrite(path: Path, **changes: Any) -> None:
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **changes}))


def test_changed_file_is_refused(release: Release, path: Path, tmp_path: Path) -> None:
    moved = release.weights.copy()
    moved[0, 0] += 1
    write_release(tmp_path / "other.safetensors", replace(release, weights=moved))
    (tmp_path / "other.safetensors").rename(path)

    with pytest.raises(InvalidWeights, match="was changed since it was written; take the file of the last round again"):
        read_release(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": "resnet18"}, "was changed since it was written"),
        ({"random-features": SIZE}, "are not those of records with 7 numbers"),
        ({"features": [1]}, "does not describe weights; take the one written with it"),
        ({"features": None}, "does not describe weights; take the one written with it"),
        ({"choice": {}}, "a field of the released weights is missing"),
        ({"about": 3}, "does not describe weights"),
        ({"digest": None}, "was changed since it was written"),
        ({"kind": "steps"}, "holds weights that were trained step by step, and exact ones are solved for"),
    ],
)
def test_changed_description_is_refused(path: Path, changes: dict[str, Any], reason: str) -> None:
    rewrite(path, **changes)

    with pytest.raises(InvalidWeights, match=reason):
        read_release(path)


def test_release_of_other_settings_is_refused(path: Path) -> None:
    with pytest.raises(InvalidWeights, match="holds weights of another model: it reads"):
        read_release(path, feature_map=FeatureMap((0, 0), SIZE))
    with pytest.raises(InvalidWeights, match="made with the encoder descriptor, this site's keys are from resnet18"):
        read_release(path, encoder="resnet18")


def test_trained_weights_and_solved_ones_are_told_apart(path: Path, tmp_path: Path) -> None:
    shape = ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, 4, 16, 1, 2, 8)
    write_checkpoint(tmp_path / "trained.safetensors", Checkpoint(Munkey(shape).state_dict(), shape, "descriptor", {}))

    assert not is_release(tmp_path / "trained.safetensors")
    with pytest.raises(InvalidWeights, match="trained step by step"):
        read_release(tmp_path / "trained.safetensors")
    with pytest.raises(InvalidWeights, match="does not describe a model that was trained"):
        read_checkpoint(path)
