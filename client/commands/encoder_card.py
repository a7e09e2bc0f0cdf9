"""`munkey-client encoder-card`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.model.encoders.encoder_card import EncoderCard, card_path
from fedmunkey.common.model.encoders.image_model import Interpolation
from fedmunkey.common.model.encoders.onnx_models import OnnxModel, pooled_shape
from fedmunkey.common.model.encoders.pooling import Pooling
from fedmunkey.common.programs import command_line
from fedmunkey.common.programs.options import JsonOption


def encoder_card(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="The model (.onnx).", show_default=False)],
    licence: Annotated[str, typer.Option(help="Under which licence the model may be used.")],
    size: Annotated[int, typer.Option(min=1, max=4096, help="Side in pixels of the images that it reads.")] = 224,
    mean: Annotated[str, typer.Option(help="Mean of each channel, grey levels being 0 to 1.")] = "0.485,0.456,0.406",
    std: Annotated[str, typer.Option(help="Standard deviation of each channel.")] = "0.229,0.224,0.225",
    interpolation: Annotated[Interpolation, typer.Option(help="How images are resized.")] = Interpolation.BILINEAR,
    pooling: Annotated[Pooling, typer.Option(help="How its output becomes tokens.")] = Pooling.MEAN_AND_MAXIMUM,
    output: Annotated[str, typer.Option(help="Which output is pooled; the first if left out.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write the card of an encoder in ONNX: its digest, and what the model needs that its file does not say.

    The card lies beside the model, of the same name with the ending .toml. The model reads a grey image first, so that
    a pooling that does not fit is refused. Hand model and card to every hospital, the card to the coordinator.

    Example: munkey-client encoder-card rad.onnx --licence MIT --pooling class-token
    """
    path = card_path(model)
    if path.exists():
        raise InvalidInput(f"{path} is there already; move it away to write another")
    try:
        content = model.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{model}: cannot be read ({error.strerror})") from None
    features = pooled_shape(model, pooling, size, OnnxModel(model, content, output))
    said = {"licence": licence, "size": size, "mean": mean, "std": std, "output": output}
    found = {"sha256": hashlib.sha256(content).hexdigest(), "features": features}
    card = EncoderCard.of(said | found | {"interpolation": interpolation, "pooling": pooling}, "the card")
    path.write_text(card.to_toml())
    if as_json:
        command_line.print_json(card.model_dump(mode="json"))
        return
    typer.echo(f"wrote {path}: {features[0]} tokens of {features[1]} numbers; use it with --encoder onnx:{model}")
