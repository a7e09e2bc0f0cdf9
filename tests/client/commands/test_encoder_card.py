"""`munkey-client encoder-card`: a model in ONNX gets its card, and is an encoder with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmunkey.common.model.encoders.encoder_card import card_path, read_encoder_card
from fedmunkey.common.model.encoders.onnx_models import OnnxEncoder
from tests.common.model.encoders.test_onnx_models import SIZE, convolution
from tests.typed import Run


def test_card_that_is_written_makes_the_model_an_encoder(run: Run, tmp_path: Path) -> None:
    model = convolution(tmp_path / "model.onnx", outputs="maps tokens")

    ended = run(
        *("encoder-card", model, "--licence", "MIT", "--size", SIZE, "--mean", "0.1,0.2,0.3", "--std", "1,1,1"),
        *("--interpolation", "bicubic", "--pooling", "class-token", "--output", "tokens", "--json"),
    )

    card = read_encoder_card(model)
    assert ended.json == card.model_dump(mode="json")
    assert (card.features, card.mean, card.output) == ((2, 6), (0.1, 0.2, 0.3), "tokens")
    assert OnnxEncoder(model).feature_shape == (2, 6)


def test_person_is_told_how_to_use_it(run: Run, tmp_path: Path) -> None:
    model = convolution(tmp_path / "model.onnx")

    ended = run("encoder-card", model, "--licence", "MIT", "--size", SIZE)

    assert ended.code == 0
    assert ended.out == f"wrote {tmp_path / 'model.toml'}: 2 tokens of 6 numbers; use it with --encoder onnx:{model}\n"


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--licence", "MIT"], "does not take an image of (1, 3, 224, 224)"),
        (["--licence", "MIT", "--size", SIZE, "--pooling", "none"], "pooling = none takes 2 dimensions"),
        (["--licence", "", "--size", SIZE], "the card: licence = ''"),
        (["--licence", "MIT", "--size", SIZE, "--std", "1,1"], "the card: std.2 = ['1', '1']"),
        (["--licence", "MIT", "--size", SIZE, "--mean", "a,b,c"], "the card: mean.0 = 'a'"),
    ],
)
def test_model_that_does_not_fit_gets_no_card(run: Run, tmp_path: Path, words: list[object], refusal: str) -> None:
    model = convolution(tmp_path / "model.onnx")

    assert refusal in run("encoder-card", model, *words).error
    assert not card_path(model).exists()


def test_card_that_is_there_is_left_alone(run: Run, tmp_path: Path) -> None:
    model = convolution(tmp_path / "model.onnx")
    card_path(model).write_text("mine")

    assert "is there already" in run("encoder-card", model, "--licence", "MIT", "--size", SIZE).error
    assert "cannot be read" in run("encoder-card", tmp_path / "none.onnx", "--licence", "MIT").error
    assert card_path(model).read_text() == "mine"
