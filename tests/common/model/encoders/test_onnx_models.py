"""Encoders from ONNX files: what the model says is pooled as the card says, and a file that does not fit is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from fedmunkey.common.clock import utc_now
from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoder_facts import fingerprint_fields
from fedmunkey.common.model.encoders import encoder_facts, feature_shape, make_encoder
from fedmunkey.common.model.encoders.encoder_card import EncoderCard, card_path
from fedmunkey.common.model.encoders.onnx_models import OnnxEncoder
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.model.federation_card import FederationCard, agreed_settings
from fedmunkey.common.settings.settings import ImageShape, Settings

SIZE = 16
GREY = ImageShape((1, 28, 28))
KERNEL = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)
"""A convolution with steps of four pixels: six maps of four by four."""


def convolution(path: Path, *, outputs: str = "maps", inputs: int = 1) -> Path:
    """Write a model of one convolution: its maps, their places as tokens, their means, or numbers not finite."""
    taken = [helper.make_tensor_value_info(f"image{i}", TensorProto.FLOAT, [1, 3, SIZE, SIZE]) for i in range(inputs)]
    nodes = [helper.make_node("Conv", ["image0", "kernel"], ["maps"], strides=[4, 4])]
    nodes.append(helper.make_node("Reshape", ["maps", "rows"], ["flat"]))
    nodes.append(helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]))
    nodes.append(helper.make_node("ReduceMean", ["tokens"], ["vector"], axes=[1], keepdims=0))
    nodes.append(helper.make_node("Log", ["maps"], ["nothing"]))
    shapes = {"maps": [1, 6, 4, 4], "tokens": [1, 16, 6], "vector": [1, 6], "nothing": [1, 6, 4, 4]}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs.split()]
    constants = [
        numpy_helper.from_array(KERNEL, "kernel"),
        numpy_helper.from_array(np.array([1, 6, 16], np.int64), "rows"),
    ]
    graph = helper.make_graph(nodes, "encoder", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def with_card(model: Path, *, features: tuple[int, int] = (2, 6), **said: object) -> Path:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    values = {"sha256": digest, "licence": "CC0-1.0", "size": SIZE, "features": features} | said
    card_path(model).write_text(EncoderCard.of(values, "test").to_toml())
    return model


def images(count: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 28, 28), dtype=torch.uint8, generator=generator)


def maps_of(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...], mode: str = "bilinear") -> Tensor:
    """Compute by hand what the model answers for an image."""
    pixels = functional.interpolate(image.float() / 255, size=(SIZE, SIZE), mode=mode, antialias=True)
    pixels = (pixels.expand(-1, 3, -1, -1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return functional.conv2d(pixels, torch.from_numpy(KERNEL), stride=4)


BY_HAND: dict[Pooling, tuple[str, Callable[[Tensor], Tensor]]] = {
    Pooling.MEAN_AND_MAXIMUM: ("maps", lambda m: torch.stack([m.mean((2, 3)), m.amax((2, 3))], 1)),
    Pooling.MEAN: ("maps", lambda m: m.mean((2, 3))[:, None]),
    Pooling.GRID: ("maps", lambda m: m.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).flatten(2).transpose(1, 2)),
    Pooling.MAXIMUM: ("maps", lambda m: m.amax((2, 3)).unsqueeze(1)),
    Pooling.CLASS_TOKEN: ("tokens", lambda m: torch.stack([m[:, :, 0, 0], m.flatten(2)[:, :, 1:].mean(2)], 1)),
    Pooling.NONE: ("vector", lambda m: m.mean((2, 3))[:, None]),
}


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_the_prepared_images_output_pooled_as_the_card_says(
    tmp_path: Path, pooling: Pooling, channels: int
) -> None:
    output, by_hand = BY_HAND[pooling]
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    image = images(1, channels)
    expected = by_hand(maps_of(image, mean, std, "bicubic"))
    model = with_card(
        convolution(tmp_path / "model.onnx", outputs="maps tokens vector"),
        features=(expected.shape[1], 6),
        mean=mean,
        std=std,
        interpolation="bicubic",
        pooling=pooling,
        output=output,
    )

    encoder = OnnxEncoder(model)
    encoding = encoder.encode(image)

    assert torch.allclose(encoding.features, expected, atol=1e-5)
    assert encoding.keys.shape == (1, encoder.key_size)
    key = expected[:, 0] if pooling is Pooling.CLASS_TOKEN else expected.flatten(1)
    assert torch.allclose(encoding.keys, functional.normalize(key, dim=1), atol=1e-5)


def test_image_has_the_same_bits_whatever_is_encoded_with_it(tmp_path: Path) -> None:
    encoder = OnnxEncoder(with_card(convolution(tmp_path / "model.onnx")), mirror=True)
    some = images(9)

    together = encoder.encode(some, batch_size=4)

    for place in range(9):
        alone = encoder.encode(some[place : place + 1])
        assert torch.equal(alone.keys[0], together.keys[place])
        assert torch.equal(alone.features[0], together.features[place])


def test_mirrored_image_has_the_key_of_the_image(tmp_path: Path) -> None:
    encoder = OnnxEncoder(with_card(convolution(tmp_path / "model.onnx")), mirror=True)
    image = images(1)

    assert torch.allclose(encoder.encode(image).keys, encoder.encode(image.flip(3)).keys, atol=1e-6)


def test_fingerprint_is_that_of_model_and_preprocessing_wherever_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = with_card(convolution(tmp_path / "model.onnx"))
    there = with_card(convolution(tmp_path / "other" / "copy.onnx"), licence="MIT")
    changed = with_card(convolution(tmp_path / "changed.onnx"), mean=(0.5, 0.5, 0.5))

    prints = [OnnxEncoder(path).fingerprint for path in (here, there, changed)]

    assert prints[0] == prints[1] != prints[2]
    assert OnnxEncoder(here, mirror=True).fingerprint != prints[0]


def test_coordinator_needs_the_card_only(tmp_path: Path) -> None:
    model = with_card(convolution(tmp_path / "model.onnx"))
    model.unlink()

    assert feature_shape("onnx", GREY, weights=str(model)) == (2, 6)


def test_encoder_and_its_file_are_one_word(tmp_path: Path) -> None:
    model = with_card(convolution(tmp_path / "model.onnx"))

    settings = Settings.parse({"encoder": f"onnx:{model}"})

    assert (settings.encoder, settings.encoder_weights) == ("onnx", str(model))
    assert Settings.parse({"encoder": f"onnx:{model}", "encoder-weights": str(model)}) == settings
    with pytest.raises(InvalidSetting, match=r"encoder-weights = other\.onnx is another file"):
        Settings.parse({"encoder": f"onnx:{model}", "encoder-weights": "other.onnx"})


def test_another_file_than_the_one_vetted_is_refused(tmp_path: Path) -> None:
    model = with_card(convolution(tmp_path / "model.onnx"))
    model.write_bytes(model.read_bytes() + b"\n")

    with pytest.raises(InvalidWeights, match=r"its digest is .* take the file that was vetted"):
        OnnxEncoder(model)


@pytest.mark.parametrize(
    ("outputs", "said", "refusal"),
    [
        ("maps", {"features": (2, 7)}, r"features = \[2, 7\], and the model has \[2, 6\]"),
        ("maps", {"pooling": "class-token"}, "pooling = class-token takes 3 dimensions"),
        ("vector", {}, r"its output is \(1, 6\)"),
        ("nothing", {}, "not finite"),
        ("maps", {"output": "logits"}, "no output logits; it has maps"),
        ("maps", {"size": 32}, r"does not take an image of \(1, 3, 32, 32\)"),
    ],
)
def test_card_of_another_model_is_refused(tmp_path: Path, outputs: str, said: dict[str, object], refusal: str) -> None:
    model = convolution(tmp_path / "model.onnx", outputs=outputs)
    with_card(model, **{"features": (2, 6), **said})  # type: ignore[arg-type]

    with pytest.raises(InvalidWeights, match=refusal):
        OnnxEncoder(model)


def test_model_of_two_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="the model has 2 inputs"):
        OnnxEncoder(with_card(convolution(tmp_path / "model.onnx", inputs=2)))


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("size = ", "not a card of an encoder"),
        ('licence = "MIT"', "sha256"),
        ("\xff", "not a card of an encoder"),
    ],
)
def test_file_that_is_no_card_is_refused(tmp_path: Path, text: str, refusal: str) -> None:
    model = convolution(tmp_path / "model.onnx")
    card_path(model).write_text(text)

    with pytest.raises(InvalidWeights, match=refusal):
        OnnxEncoder(model)


@pytest.mark.parametrize(
    "said",
    [{"size": 0}, {"std": (1, 0, 1)}, {"mean": (float("nan"), 0, 0)}, {"licence": ""}, {"pooling": "max"}, {"more": 1}],
)
def test_value_that_no_card_has_is_named(tmp_path: Path, said: dict[str, object]) -> None:
    with pytest.raises(InvalidWeights, match=f"^test: {next(iter(said))}"):
        with_card(convolution(tmp_path / "model.onnx"), **said)  # type: ignore[arg-type]


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"not a model")

    with pytest.raises(InvalidWeights, match="not a model in ONNX that can be run"):
        OnnxEncoder(with_card(model))


def test_what_is_missing_is_said_with_the_way_out(tmp_path: Path) -> None:
    model = with_card(convolution(tmp_path / "model.onnx"))
    bare = convolution(tmp_path / "bare.onnx")
    model.unlink()

    with pytest.raises(InvalidSetting, match="there is no such file"):
        make_encoder("onnx", GREY, weights=str(model))
    with pytest.raises(InvalidSetting, match="`munkey-client encoder-card` writes one"):
        make_encoder("onnx", GREY, weights=str(bare))
    with pytest.raises(InvalidSetting, match="encoder = onnx:FILE"):
        make_encoder("onnx", GREY)
    with pytest.raises(InvalidSetting, match="of the size on its card"):
        make_encoder("onnx", GREY, weights=str(model), size=64)


@pytest.mark.parametrize("mirror", [False, True])
def test_card_alone_says_what_the_encoder_is_made_of(tmp_path: Path, mirror: bool) -> None:
    file = with_card(convolution(tmp_path / "rad.onnx"))
    encoder = make_encoder("onnx", GREY, weights=str(file), mirror=mirror)
    file.unlink()
    settings = Settings().replace(encoder="onnx", encoder_weights=str(file), encoder_mirror=mirror, num_classes=2)

    facts = encoder_facts("onnx", GREY, weights=str(file), mirror=mirror)

    assert facts == encoder.facts
    card = FederationCard("fed", 1, "", "", utc_now(), ("a", "b"), facts, agreed_settings(settings))
    card.check(fingerprint_fields(encoder.fingerprint), "a key store", "")
    assert (card.features, card.fields()["encoder-size"]) == ("2x6", 0)
