"""What an encoder makes of pictures, as nodes in ONNX: prepared, each read alone, mirrored too where it does that."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedmunkey.client.predicting.exporting.graph import Graph
from fedmunkey.common.model.encoders.image_model import ImageModelEncoder
from fedmunkey.common.settings.settings import ImageShape

_LEAST = 1e-12
"""Below which a key's length is not divided by."""


def add_encoder(graph: Graph, encoder: ImageModelEncoder, network: Any, images: str, shape: ImageShape) -> str:
    """Add what makes (N, tokens, numbers) features of (N, C, H, W) images; return their name.

    `network` is the encoder's own graph in ONNX, from (1, 3, S, S) to (1, tokens, numbers). It is run for one image at
    a time, as the encoder does: many networks are exported for one image only.
    """
    pixels = _add_prepared(graph, encoder, images, shape)
    if not encoder.mirror:
        return _add_each(graph, network, pixels)
    side, (tokens, size) = encoder.preprocessing.size, encoder.feature_shape
    mirrored = graph.node("Gather", pixels, graph.constant(np.arange(side - 1, -1, -1, dtype=np.int64)), axis=3)
    both = _add_each(graph, network, graph.node("Concat", pixels, mirrored, axis=0))
    pairs = graph.node("Reshape", both, graph.shape(2, -1, tokens, size))
    total = graph.node("ReduceSum", pairs, graph.shape(0), keepdims=0)
    return graph.node("Div", total, graph.number(2.0, np.float32))


def add_keys(graph: Graph, encoder: ImageModelEncoder, features: str) -> str:
    """Add (N, key_size) keys of unit length; return their name."""
    tokens, size = encoder.feature_shape
    if encoder.key_size == tokens * size:
        row = graph.node("Reshape", features, graph.shape(-1, encoder.key_size))
    else:
        first = graph.node("Slice", features, graph.shape(0), graph.shape(1), graph.shape(1))
        row = graph.node("Reshape", first, graph.shape(-1, size))
    square = graph.node("ReduceSum", graph.node("Mul", row, row), graph.shape(-1), keepdims=1)
    length = graph.node("Max", graph.node("Sqrt", square), graph.number(_LEAST, np.float32))
    return graph.node("Div", row, length)


def _add_prepared(graph: Graph, encoder: ImageModelEncoder, images: str, shape: ImageShape) -> str:
    """Add grey levels from 0 to 1, resized, in three channels, less the mean and over the deviation.

    Resizing is linear along each side, so it is two products with fixed matrices, and none of ONNX's own ways to
    resize, of which programs differ.
    """
    channels, height, width = shape
    prepared = encoder.preprocessing
    levels = graph.node("Div", graph.to_float(images), graph.number(255.0, np.float32))
    down = graph.constant(_resizing(height, prepared.size, prepared.interpolation.value))
    across = graph.constant(_resizing(width, prepared.size, prepared.interpolation.value).T)
    pixels = graph.node("MatMul", graph.node("MatMul", down, levels), across)
    if channels == 1:
        pixels = graph.node("Concat", pixels, pixels, pixels, axis=1)
    mean, deviation = (
        graph.constant(np.array(numbers, dtype=np.float32).reshape(1, 3, 1, 1))
        for numbers in (prepared.mean, prepared.std)
    )
    return graph.node("Div", graph.node("Sub", pixels, mean), deviation)


def _resizing(before: int, after: int, mode: str) -> NDArray[np.float32]:
    """Return the (after, before) matrix that resizes one side, with antialiasing."""
    eye = torch.eye(before)[None, None]
    found: NDArray[np.float32] = functional.interpolate(eye, size=(after, before), mode=mode, antialias=True)[
        0, 0
    ].numpy()
    return found


def _add_each(graph: Graph, network: Any, pixels: str) -> str:
    """Add a loop over images, each a batch of its own in the network; return the name of what it gives."""
    from onnx import helper

    (taken,), (given,) = network.graph.input, network.graph.output
    inner = Graph("one-")
    inner.node("Unsqueeze", "one-image", inner.shape(0), output=taken.name)
    before = inner.nodes.pop()
    inner.node("Squeeze", given.name, inner.shape(0), output="one-features")
    shapes = [[size.dim_value for size in value.type.tensor_type.shape.dim][1:] for value in (taken, given)]
    body = helper.make_graph(
        [before, *network.graph.node, *inner.nodes],
        "one-picture",
        [inner.value("one-image", np.float32, list(shapes[0]))],
        [inner.value("one-features", np.float32, list(shapes[1]))],
        [*network.graph.initializer, *inner.constants],
    )
    return graph.node("Scan", pixels, num_scan_inputs=1, body=body)
