from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoders import Encoding, torchvision_models
from fedmunkey.common.model.encoders.torchvision_models import (
    TorchvisionEncoder,
    encoder_size,
    poolings_of,
    torchvision_feature_shape,
    torchvision_names,
)
from fedmunkey.common.model.torchvision_import import import_torchvision

CPU = torch.device("cpu")
CLOSE = 1e-5
SIZE = 64


def fresh(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = import_torchvision().models.get_model(name, weights=None)
    return model


def images(count: int, channels: int = 3, side: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def encoder(name: str, weights: Path, size: int = SIZE, *, mirror: bool = False) -> TorchvisionEncoder:
    return TorchvisionEncoder(name, weights=str(weights), size=size, mirror=mirror, device=CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give randomly initialised weights of two small models, as `.pth` and as `.safetensors`."""
    path = tmp_path_factory.mktemp("weights")
    for name in ("squeezenet1_0", "resnet18"):
        state = fresh(name).state_dict()
        torch.save(state, path / f"{name}.pth")
        save_file(state, path / f"{name}.safetensors")
    return path


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("channels", [1, 3])
def test_keys_have_unit_length_and_the_promised_sizes(folder: Path, name: str, ending: str, channels: int) -> None:
    some = encoder(name, folder / f"{name}.{ending}")
    encoding = some.encode(images(3, channels))

    assert encoding.keys.shape == (3, some.key_size) == (3, 1024)
    assert encoding.features.shape == (3, *some.feature_shape) == (3, 2, 512)
    assert encoding.keys.dtype == encoding.features.dtype == torch.float32
    assert torch.allclose(encoding.keys.norm(dim=1), torch.ones(3), atol=CLOSE)


def assert_same(left: Encoding, right: Encoding) -> None:
    assert torch.equal(left.keys, right.keys)
    assert torch.equal(left.features, right.features)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_image_has_the_same_bits_whatever_is_encoded_with_it(folder: Path, name: str) -> None:
    some, batch = encoder(name, folder / f"{name}.pth"), images(5)
    whole = some.encode(batch)

    order = torch.tensor([3, 0, 4, 1, 2])
    assert_same(some.encode(batch[order]), Encoding(whole.keys[order], whole.features[order]))
    assert_same(some.encode(batch, batch_size=2), whole)
    assert_same(some.encode(batch[2:3]), Encoding(whole.keys[2:3], whole.features[2:3]))
    assert_same(some.encode(batch.contiguous(memory_format=torch.channels_last)), whole)


def test_mirrored_features_are_means_over_an_image_and_its_mirror_image(folder: Path) -> None:
    batch = images(3)
    plain = encoder("squeezenet1_0", folder / "squeezenet1_0.pth")
    mirroring = encoder("squeezenet1_0", folder / "squeezenet1_0.pth", mirror=True)
    both = mirroring.encode(batch)

    expected = (plain.encode(batch).features + plain.encode(batch.flip(3)).features) / 2

    # Not to the last bit: the image is resized first, then mirrored.
    assert torch.allclose(both.features, expected, atol=CLOSE)
    assert torch.allclose(both.keys, torch.nn.functional.normalize(expected.flatten(1), dim=1), atol=CLOSE)
    assert torch.allclose(both.keys, mirroring.encode(batch.flip(3)).keys, atol=CLOSE)
    assert not torch.equal(both.keys, plain.encode(batch).keys)


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18"])
def test_threads_do_not_change_the_bits(folder: Path, name: str, set_threads: Callable[[int], None]) -> None:
    some, batch = encoder(name, folder / f"{name}.pth"), images(4)
    set_threads(1)
    whole = some.encode(batch)

    for threads in (2, 3):
        set_threads(threads)
        assert_same(some.encode(batch), whole)
        assert torch.get_num_threads() == threads


def test_threads_are_given_back_after_a_failure(folder: Path, set_threads: Callable[[int], None]) -> None:
    some = encoder("squeezenet1_0", folder / "squeezenet1_0.pth")
    set_threads(3)

    with pytest.raises(RuntimeError):
        some.encode_batch(torch.zeros(2, 5, 28, 28, dtype=torch.uint8))

    assert torch.get_num_threads() == 3


def test_features_are_mean_and_maximum_of_the_last_feature_map(folder: Path) -> None:
    model = fresh("squeezenet1_0").eval()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    batch = images(2, side=SIZE)
    with torch.no_grad():
        maps = model.features((batch / 255 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))  # type: ignore[operator]

    features = encoder("squeezenet1_0", folder / "squeezenet1_0.pth").encode(batch).features

    assert torch.allclose(features[:, 0], maps.mean((2, 3)), atol=1e-4)
    assert torch.allclose(features[:, 1], maps.amax((2, 3)), atol=1e-4)


def test_resnet_features_are_what_its_classifier_reads(folder: Path) -> None:
    model, batch = fresh("resnet18").eval(), images(2, side=SIZE)
    some = encoder("resnet18", folder / "resnet18.pth")
    seen: list[Tensor] = []
    model.get_submodule("avgpool").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model((batch / 255 - some._mean) / some._std)

    assert torch.allclose(some.encode(batch).features[:, 0], seen[0].flatten(1), atol=1e-4)


def test_grey_image_is_encoded_like_its_colour_copy(folder: Path) -> None:
    some, grey = encoder("squeezenet1_0", folder / "squeezenet1_0.pth"), images(2, channels=1)

    assert torch.allclose(some.encode(grey).keys, some.encode(grey.expand(-1, 3, -1, -1)).keys, atol=CLOSE)


def test_encoder_is_frozen(folder: Path) -> None:
    some = encoder("resnet18", folder / "resnet18.pth")
    before = some.encode(images(2)).keys

    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in some._model.parameters())
    # Batch normalisation would update its running statistics here if it were not in evaluation mode.
    some.encode(images(8).flip(0))
    assert torch.equal(some.encode(images(2)).keys, before)


def test_fingerprint_is_that_of_the_weights_not_of_their_file(folder: Path, tmp_path: Path) -> None:
    torch.save(dict(fresh("squeezenet1_0").named_parameters()), tmp_path / "parameters.pth")
    files = (folder / "squeezenet1_0.pth", folder / "squeezenet1_0.safetensors", tmp_path / "parameters.pth")

    assert len({encoder("squeezenet1_0", file).fingerprint for file in files}) == 1


def test_fingerprint_changes_with_weights_size_and_mirror(folder: Path, tmp_path: Path) -> None:
    state = fresh("squeezenet1_0").state_dict()
    state["classifier.1.bias"][0] += 1e-3
    torch.save(state, tmp_path / "other.pth")

    fingerprints = {
        encoder("squeezenet1_0", folder / "squeezenet1_0.pth").fingerprint,
        encoder("squeezenet1_0", folder / "squeezenet1_0.pth", size=48).fingerprint,
        encoder("squeezenet1_0", folder / "squeezenet1_0.pth", mirror=True).fingerprint,
        encoder("squeezenet1_0", tmp_path / "other.pth").fingerprint,
    }

    assert len(fingerprints) == 4


@pytest.mark.parametrize(("name", "other"), [("squeezenet1_0", "resnet18"), ("squeezenet1_1", "squeezenet1_0")])
def test_weights_of_another_model_are_refused(folder: Path, name: str, other: str) -> None:
    with pytest.raises(
        InvalidWeights, match=rf"{other}\.pth: not weights of {name} \(first difference: .+\); name the"
    ):
        encoder(name, folder / f"{other}.pth")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file_is_refused(folder: Path, tmp_path: Path, ending: str, share: float) -> None:
    content = (folder / f"squeezenet1_0.{ending}").read_bytes()
    broken = tmp_path / f"broken.{ending}"
    broken.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(InvalidWeights, match=rf"broken\.{ending}: not a readable state dict \(\w+\)$"):
        encoder("squeezenet1_0", broken)


NO_STATE = r"not a state dict of tensors; save model\.state_dict\(\)"


def headless() -> dict[str, Tensor]:
    return {name: weight for name, weight in fresh("squeezenet1_0").state_dict().items() if "classifier" not in name}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: [1, 2], NO_STATE, id="list"),
        pytest.param(lambda: {"a": 1}, NO_STATE, id="numbers"),
        pytest.param(lambda: {"state_dict": {"a": torch.zeros(1)}}, NO_STATE, id="nested"),
        pytest.param(lambda: fresh("squeezenet1_0"), "not a readable state dict", id="would-run-code"),
        pytest.param(headless, r"first difference: classifier\.1\.bias", id="without-classifier"),
    ],
)
def test_file_with_something_else_in_it_is_refused(tmp_path: Path, make: Callable[[], Any], message: str) -> None:
    torch.save(make(), tmp_path / "other.pth")

    with pytest.raises(InvalidWeights, match=message):
        encoder("squeezenet1_0", tmp_path / "other.pth")


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"encoder-weights = .*absent\.pth: there is no such file"):
        encoder("squeezenet1_0", tmp_path / "absent.pth")


Download = Callable[..., None]


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Download], None]:
    """Put something in the place of torch's download, with an empty cache."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def put(instead: Download) -> None:
        monkeypatch.setattr(torch.hub, "download_url_to_file", instead)

    return put


@pytest.mark.parametrize(
    "failure",
    [URLError("no route to host"), TimeoutError("timed out"), RuntimeError("invalid hash value\nexpected ...")],
)
def test_failed_download_is_one_clear_line(download: Callable[[Download], None], failure: Exception) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise failure

    download(fail)

    with pytest.raises(InvalidWeights) as caught:
        TorchvisionEncoder("squeezenet1_0", weights="", size=SIZE, device=CPU)
    assert str(caught.value) == (
        f"encoder = squeezenet1_0: its weights could not be downloaded ({type(failure).__name__}); "
        "give a file with encoder-weights"
    )


def test_downloaded_weights_are_those_of_a_file_and_must_fit(
    download: Callable[[Download], None], folder: Path
) -> None:
    def downloaded(name: str) -> TorchvisionEncoder:
        def copy(_url: str, target: str, *_args: object, **_options: object) -> None:
            Path(target).write_bytes((folder / f"{name}.pth").read_bytes())

        download(copy)
        return TorchvisionEncoder("squeezenet1_0", weights="", size=SIZE, device=CPU)

    with pytest.raises(InvalidWeights, match="encoder-weights = torchvision: not weights of squeezenet1_0"):
        downloaded("resnet18")
    for cached in Path(torch.hub.get_dir()).rglob("*.pth"):
        cached.unlink()
    assert downloaded("squeezenet1_0").fingerprint == encoder("squeezenet1_0", folder / "squeezenet1_0.pth").fingerprint


def test_transformer_key_is_its_class_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def small(_name: str, size: int) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = import_torchvision().models.VisionTransformer(size, 16, 2, 2, 24, 48)
        return model

    # The smallest vision transformer that torchvision names has weights of 330 MB.
    monkeypatch.setattr(torchvision_models, "_build", small)
    model = small("", 32)
    torch.save(model.state_dict(), tmp_path / "small.pth")
    seen: list[Tensor] = []
    model.get_submodule("encoder").register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    some = encoder("vit_b_16", tmp_path / "small.pth", size=32)
    encoding = some.encode(images(3, side=32))
    with torch.no_grad():
        model.eval()((images(3, side=32) / 255 - some._mean) / some._std)

    assert some.key_size == 24
    assert some.feature_shape == (2, 24)
    assert torch.allclose(encoding.features[:, 0], seen[0][:, 0], atol=CLOSE)
    assert torch.allclose(encoding.features[:, 1], seen[0][:, 1:].mean(1), atol=CLOSE)
    assert torch.allclose(
        encoding.keys, encoding.features[:, 0] / encoding.features[:, 0].norm(dim=1)[:, None], atol=CLOSE
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("alexnet", 256),
        ("convnext_tiny", 768),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 576),
        ("resnet50", 2048),
        ("resnext50_32x4d", 2048),
        ("squeezenet1_1", 512),
        ("vgg11_bn", 512),
        ("vit_b_16", 768),
        ("wide_resnet50_2", 2048),
    ],
)
def test_every_family_has_two_feature_tokens(name: str, size: int) -> None:
    assert torchvision_feature_shape(name, 224) == (2, size)


def test_every_name_belongs_to_a_torchvision_model() -> None:
    names = torchvision_names()
    models = import_torchvision().models

    assert {"vit_b_16", "resnet18", "squeezenet1_0"} <= set(names) <= set(models.list_models(module=models))


@pytest.mark.parametrize(
    ("name", "asked", "side", "expected"),
    [
        ("resnet18", 0, 28, 112),
        ("resnet18", 0, 64, 112),
        ("resnet18", 0, 65, 224),
        ("resnet18", 96, 28, 96),
        ("vit_b_16", 0, 28, 224),
        ("vit_b_16", 384, 28, 384),
        ("vit_h_14", 0, 28, 518),
    ],
)
def test_size_is_the_asked_or_a_fitting_one(name: str, asked: int, side: int, expected: int) -> None:
    assert encoder_size(name, asked, side) == expected


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 100), ("squeezenet1_0", 4), ("alexnet", 32)])
def test_size_that_the_model_cannot_take_is_refused(tmp_path: Path, name: str, size: int) -> None:
    message = rf"encoder-size = {size}: {name} takes no images of that size; set 0 or another"

    with pytest.raises(InvalidSetting, match=message):
        torchvision_feature_shape(name, size)
    with pytest.raises(InvalidSetting, match=message):
        encoder(name, tmp_path / "unread.pth", size=size)


def test_maps_are_pooled_as_is_asked_and_every_pooling_is_another_encoder(folder: Path) -> None:
    weights, batch = str(folder / "squeezenet1_0.pth"), images(3)
    poolings = poolings_of("squeezenet1_0")
    encoders = [
        TorchvisionEncoder("squeezenet1_0", weights=weights, size=SIZE, pooling=p, device=CPU) for p in poolings
    ]

    both, mean, maximum, grid = (one.encode(batch) for one in encoders)

    assert torch.equal(mean.features[:, 0], both.features[:, 0])
    assert torch.equal(maximum.features[:, 0], both.features[:, 1])
    # A map of 64 pixels has 3 a side: cells share the middle.
    assert grid.features.shape == (3, 4, 512)
    assert not torch.equal(grid.features[:, 0], grid.features[:, 3])
    assert [one.key_size for one in encoders] == [1024, 512, 512, 2048]
    assert all(encoding.keys.shape[1] == one.key_size for one, encoding in zip(encoders, (both, mean), strict=False))
    assert len({one.fingerprint for one in encoders}) == len({one.facts.preprocessing for one in encoders}) == 4


def test_one_pass_gives_what_each_pooling_gives_by_itself(folder: Path) -> None:
    weights, batch = str(folder / "squeezenet1_0.pth"), images(3)
    some = encoder("squeezenet1_0", folder / "squeezenet1_0.pth", mirror=True)

    found = some.encode_poolings(batch, poolings_of("squeezenet1_0"))

    for pooling, encoding in zip(poolings_of("squeezenet1_0"), found, strict=True):
        alone = TorchvisionEncoder(
            "squeezenet1_0", weights=weights, size=SIZE, pooling=pooling, mirror=True, device=CPU
        )
        assert_same(encoding, alone.encode(batch))
