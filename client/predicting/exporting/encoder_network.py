"""An encoder's network as a graph in ONNX that reads one prepared image, its pooling included."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmunkey.client.predicting.exporting.graph import NEWEST, OLDEST, Graph
from fedmunkey.common.errors import InvalidWeights, brought_by
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.encoders.image_model import ImageModelEncoder
from fedmunkey.common.model.encoders.onnx_models import OnnxEncoder
from fedmunkey.common.model.encoders.pooling import Pooling

_PREFIX = "encoder/"


def network_of(encoder: Encoder) -> tuple[Any, str]:
    """Return a model from (1, 3, S, S) to (1, tokens, numbers); or None, and why there is none."""
    if not isinstance(encoder, ImageModelEncoder):
        return None, f"the encoder {encoder.facts.name} is no network"
    with brought_by("onnx", "a model in ONNX"):
        from onnx import compose
    try:
        model = _of_file(encoder) if isinstance(encoder, OnnxEncoder) else _traced(encoder)
    except InvalidWeights:
        raise
    except Exception as error:
        # What PyTorch and ONNX raise where they cannot write or convert an operator has no base class.
        return None, f"its encoder cannot be written in ONNX ({' '.join(str(error).split())[:200]})"
    return compose.add_prefix(model, _PREFIX), ""


class _Prepared(nn.Module):
    """From a prepared image to its features, for PyTorch to follow."""

    def __init__(self, encoder: ImageModelEncoder, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._read = encoder.read_prepared

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (1, tokens, numbers)."""
        return self._read(pixels)


def _traced(encoder: ImageModelEncoder) -> Any:
    """Have PyTorch write the operations that it goes through for one image."""
    import onnx

    network, side = encoder.network, encoder.preprocessing.size
    if network is None:
        raise ValueError("it is not in PyTorch")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The way that needs no further package is deprecated, and says so in several voices.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Prepared(encoder, network).eval(),
            (torch.zeros(1, 3, side, side, device=encoder.device),),
            Path(folder) / "network.onnx",
            input_names=["pixels"],
            output_names=["features"],
            opset_version=NEWEST - 1,
            dynamo=False,
        )
        return onnx.load(str(Path(folder) / "network.onnx"))


def _of_file(encoder: OnnxEncoder) -> Any:
    """Return the model of a file, as it was vetted, with the pooling that its card names."""
    import onnx
    from onnx import version_converter

    content = encoder.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != encoder.card.sha256:
        raise InvalidWeights(f"{encoder.path} was changed since it was read; take the file that was vetted")
    model = onnx.load_from_string(content)
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if versions.get("", OLDEST) < OLDEST:
        model = version_converter.convert_version(model, NEWEST - 1)
    side, (tokens, size) = encoder.card.size, encoder.feature_shape
    # A network may have been written for several images, of any size.
    initial = {constant.name for constant in model.graph.initializer}
    taken = [value for value in model.graph.input if value.name not in initial]
    name = taken[0].name
    pooling = Graph("pool-")
    output = encoder.card.output or model.graph.output[0].name
    _add_pooling(pooling, encoder.card.pooling, output, tuple(encoder.answer(torch.zeros(1, 3, side, side)).shape))
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.input.append(pooling.value(name, np.float32, [1, 3, side, side]))
    model.graph.output.append(pooling.value("pool-features", np.float32, [1, tokens, size]))
    model.graph.node.extend(pooling.nodes)
    model.graph.initializer.extend(pooling.constants)
    return model


def _add_pooling(graph: Graph, pooling: Pooling, output: str, shape: tuple[int, ...]) -> None:
    """Add `pool-features`, (1, tokens, numbers), of a model's output of some shape."""
    given = "pool-features"
    if pooling is Pooling.NONE:
        graph.node("Unsqueeze", graph.to_float(output), graph.shape(1), output=given)
        return
    found = graph.to_float(output)
    if pooling is Pooling.CLASS_TOKEN:
        first, others = (
            graph.node("Slice", found, graph.shape(start), graph.shape(stop), graph.shape(1))
            for start, stop in ((0, 1), (1, shape[1]))
        )
        total = graph.node("ReduceSum", others, graph.shape(1), keepdims=1)
        mean = graph.node("Div", total, graph.number(float(shape[1] - 1), np.float32))
        graph.node("Concat", first, mean, axis=1, output=given)
        return
    _, channels, height, width = shape
    if pooling is Pooling.GRID:
        down, across = (graph.constant(_halves(side)) for side in (height, width))
        halves = graph.node("MatMul", graph.node("MatMul", down, found), graph.node("Transpose", across, perm=[1, 0]))
        flat = graph.node("Reshape", halves, graph.shape(1, channels, 4))
        graph.node("Transpose", flat, perm=[0, 2, 1], output=given)
        return
    row = graph.shape(1, 1, channels)
    average = graph.node("GlobalAveragePool", found)
    if pooling is Pooling.MEAN:
        graph.node("Reshape", average, row, output=given)
        return
    if pooling is Pooling.MAXIMUM:
        graph.node("Reshape", graph.node("GlobalMaxPool", found), row, output=given)
        return
    mean = graph.node("Reshape", average, row)
    maximum = graph.node("Reshape", graph.node("GlobalMaxPool", found), row)
    graph.node("Concat", mean, maximum, axis=1, output=given)


def _halves(side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the (2, side) matrix of means over two halves, which share the middle of an odd side."""
    eye = torch.eye(side)[None]
    return nn.functional.adaptive_avg_pool1d(eye, 2)[0].T.contiguous().numpy()
