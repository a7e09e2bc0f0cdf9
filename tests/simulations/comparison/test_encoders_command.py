"""`munkey-sim encoders` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.model.torchvision_import import import_torchvision
from fedmunkey.simulations.comparison.encoder_figures import EncoderFigures, PooledFigures, sample
from tests.simulations.conftest import MunkeySim

POOLINGS = ["mean-and-maximum", "mean", "maximum", "grid"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(import_torchvision().models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_encoders_stand_side_by_side_and_pooling_is_chosen_on_validation_records(
    munkey_sim: MunkeySim, few_npz: Path, weights: Path, tmp_path: Path
) -> None:
    words = ["--encoder", "descriptor", "--encoder", f"squeezenet1_1={weights}", "--set", "encoder-size=48"]
    code, out, err = munkey_sim("encoders", "--data", str(few_npz), *words, "--output", str(tmp_path / "f.json"))

    assert code == 0, err
    document = json.loads((tmp_path / "f.json").read_text())
    plain, network = document["results"]
    assert (plain["encoder"], network["encoder"]) == ("descriptor", "squeezenet1_1")
    assert [one["pooling"] for one in plain["poolings"]] == [""]
    assert [one["pooling"] for one in network["poolings"]] == POOLINGS
    assert [one["numbers"] for one in network["poolings"]] == [1024, 512, 512, 2048]
    best = max(one["validation"] for one in network["poolings"])
    assert {one["pooling"]: one["validation"] for one in network["poolings"]}[network["chosen"]] == best
    # A network without any training knows something of digits as well, the descriptor more.
    assert plain["poolings"][0]["test"] > 80
    assert plain["milliseconds"] < network["milliseconds"]
    assert "squeezenet1_1" in out
    assert network["chosen"] in out


def test_of_equally_good_poolings_the_smallest_is_taken() -> None:
    poolings = [PooledFigures("grid", 8, 80.0, 70.0, 60.0), PooledFigures("mean", 2, 80.0, 60.0, 50.0)]

    assert EncoderFigures("x", "y", 3, 1.0, poolings).chosen is poolings[1]


def test_sample_has_as_many_of_each_split_and_is_the_same_again(few_digits: Dataset) -> None:
    first, again = (sample(few_digits, 7, seed=0) for _ in range(2))

    assert first.record_ids.tolist() == again.record_ids.tolist()
    assert {split: int((first.splits == split.value).sum()) for split in Split} == dict(
        zip(Split, (7, 6, 7), strict=True)
    )
    assert len(np.unique(first.record_ids)) == len(first)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--encoder", "squeezenet"], "encoder = squeezenet: unknown; did you mean squeezenet1_"),
        (["--encoder", "onnx:nowhere.onnx"], "nowhere"),
        (["--set", "encoder-pooling=grid"], "encoder-pooling = grid: encoders are named with --encoder"),
        (["--output", "."], "--output .: must be a file"),
    ],
)
def test_what_cannot_be_used_is_one_line(munkey_sim: MunkeySim, few_npz: Path, words: list[str], reason: str) -> None:
    code, _, err = munkey_sim("encoders", "--data", str(few_npz), *words)

    assert code == EXIT_CODE
    assert reason in err.splitlines()[-1]
