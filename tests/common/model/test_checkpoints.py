from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.settings.settings import ImagePath

SHAPE = ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, 4, 16, 1, 2, 8)
FROZEN = ModelShape(ImagePath.FROZEN, (4, 6), 0, 4, 16, 1, 2, 8)
ABOUT = {"round": 3, "mean": {"test-accuracy": 0.5}, "guarantee": "empirical"}


def checkpoint(shape: ModelShape = SHAPE, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    return Checkpoint(Munkey(shape).state_dict(), shape, "descriptor", ABOUT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, checkpoint())
    return path


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(InvalidWeights, match=message) as caught:
        read_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


def rewrite(path: Path, **changes: object) -> None:
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **changes}))


@pytest.mark.parametrize("shape", [SHAPE, FROZEN])
def test_checkpoint_comes_back_bit_for_bit(tmp_path: Path, shape: ModelShape) -> None:
    path, written = tmp_path / "new" / "folder" / "last.safetensors", checkpoint(shape)

    write_checkpoint(path, written)
    found = read_checkpoint(path, expected=shape, encoder="descriptor")

    assert (found.shape, found.encoder, found.about) == (shape, "descriptor", ABOUT)
    assert found.weights.keys() == written.weights.keys()
    assert all(torch.equal(found.weights[name], weight) for name, weight in written.weights.items())
    assert [file.name for file in sorted(path.parent.iterdir())] == ["last.json", "last.safetensors"]


def test_model_has_the_weights_and_is_ready_to_predict(path: Path) -> None:
    model = read_checkpoint(path).model()

    assert not model.training
    assert torch.equal(model.head.weight, checkpoint().weights["head.weight"])


def test_weights_need_not_be_contiguous(tmp_path: Path) -> None:
    written = checkpoint()
    turned = {name: weight.T.contiguous().T if weight.ndim == 2 else weight for name, weight in written.weights.items()}

    write_checkpoint(tmp_path / "w.safetensors", replace(written, weights=turned))

    found = read_checkpoint(tmp_path / "w.safetensors").weights
    assert all(torch.equal(found[name], weight) for name, weight in written.weights.items())


def test_one_file_without_the_other_is_refused(path: Path) -> None:
    path.with_suffix(".json").rename(path.parent / "elsewhere.json")
    refused(path, r"weights\.json: weights cannot be read; name a \.safetensors with its \.json")

    (path.parent / "elsewhere.json").rename(path.with_suffix(".json"))
    path.unlink()
    refused(path, r"weights\.safetensors: weights cannot be read")


@pytest.mark.parametrize("kept", [0, 4, 7, 100, -1])
def test_truncated_weights_are_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])

    refused(path, r"weights\.safetensors or its \.json is damaged; write it again")


DAMAGED = r"or its \.json is damaged; write it again"
NO_MODEL = r"weights\.json does not describe a model( that was trained)?; take the file written with it"


@pytest.mark.parametrize(
    ("message", "content"),
    [
        *((DAMAGED, content) for content in (b"", b"{", b'{"format": 1', b"\xff\xfe\x00", b"not json")),
        *((NO_MODEL, content) for content in (b"[]", b'"text"', b"3", b"null", b"{}", b'{"model": {}}')),
        (NO_MODEL, b'{"model": 5, "encoder": "a", "about": {}}'),
    ],
)
def test_json_that_is_damaged_or_about_something_else_is_refused(path: Path, message: str, content: bytes) -> None:
    path.with_suffix(".json").write_bytes(content)

    refused(path, message)


@pytest.mark.parametrize(
    ("name", "value"), [("width", "16"), ("depth", None), ("patch_size", 0), ("width", -4), ("more", 1)]
)
def test_json_with_an_impossible_model_is_refused(path: Path, name: str, value: object) -> None:
    rewrite(path, model={**SHAPE.to_json(), name: value})

    refused(path, "does not (describe a model|hold the weights)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected": replace(SHAPE, num_classes=7)}, "another model: num_classes is 4, the settings ask for 7"),
        (
            {"expected": replace(SHAPE, input_shape=(1, 16, 16))},
            r"input_shape is \[1, 8, 8\], the settings ask for \[1, 16",
        ),
        ({"expected": FROZEN}, "image_path is patches, the settings ask for frozen"),
        ({"encoder": "resnet18"}, "trained with the encoder descriptor, this site's keys are from resnet18"),
    ],
)
def test_weights_of_another_model_or_encoder_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    refused(path, message, **options)


def test_weights_beside_another_runs_json_are_refused(path: Path) -> None:
    rewrite(path, model=replace(SHAPE, width=32).to_json())
    refused(path, "does not hold the weights that .* describes; take both from one run")

    write_checkpoint(path, checkpoint())
    weights = dict(checkpoint().weights)
    del weights["head.bias"]
    save_file(weights, path)
    refused(path, "does not hold the weights")


@pytest.mark.parametrize("failing", [1, 2])
def test_reader_never_finds_half_a_file(path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_checkpoint(path, checkpoint(seed=1))

    found = read_checkpoint(path)
    seed = 0 if failing == 1 else 1
    assert torch.equal(found.weights["head.weight"], checkpoint(seed=seed).weights["head.weight"])


def test_second_checkpoint_replaces_the_first(path: Path) -> None:
    write_checkpoint(path, replace(checkpoint(seed=1), about={"round": 4}))

    found = read_checkpoint(path)

    assert found.about == {"round": 4}
    assert torch.equal(found.weights["head.weight"], checkpoint(seed=1).weights["head.weight"])
