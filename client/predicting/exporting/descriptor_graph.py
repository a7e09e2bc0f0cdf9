"""The parameter-free descriptor as nodes in ONNX, in 64-bit floats, as `common.model.encoders.descriptor` computes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.predicting.exporting.graph import Graph
from fedmunkey.common.model.encoders.descriptor import ARC_TANGENT, CELLS, FRACTION, ORIENTATIONS, PIXELS, windows
from fedmunkey.common.settings.settings import ImageShape


def add_descriptor(graph: Graph, images: str, shape: ImageShape) -> tuple[str, str]:
    """Add (N, key_size) keys and (N, tokens, numbers) features of (N, C, H, W) images; return their names."""
    channels, height, width = shape
    levels = graph.node("Add", graph.to_double(images), graph.number(1.0))
    grid = graph.node("Div", _add_average(graph, levels, PIXELS, (height, width)), graph.number(256.0))
    grey = graph.node("ReduceSum", levels, graph.shape(1), keepdims=0)
    bins = graph.node("Div", _add_gradients(graph, grey, (height, width)), graph.number(4.0 * 256 * channels))
    flat = [
        graph.node("Reshape", grid, graph.shape(-1, channels * PIXELS**2)),
        graph.node("Reshape", bins, graph.shape(-1, ORIENTATIONS * CELLS**2)),
    ]
    whole = graph.node("Concat", *(_add_unit(graph, part) for part in flat), axis=1)
    side = PIXELS // CELLS
    split = graph.node("Reshape", grid, graph.shape(-1, channels, CELLS, side, CELLS, side))
    turned = graph.node("Transpose", split, perm=[0, 2, 4, 1, 3, 5])
    patches = graph.node("Reshape", turned, graph.shape(-1, CELLS**2, channels * side**2))
    columns = graph.node("Reshape", bins, graph.shape(-1, ORIENTATIONS, CELLS**2))
    histograms = graph.node("Transpose", columns, perm=[0, 2, 1])
    features = graph.node("Concat", patches, histograms, axis=2)
    return graph.to_float(_add_unit(graph, whole)), graph.to_float(features)


def _add_gradients(graph: Graph, grey: str, sides: tuple[int, int]) -> str:
    """Add (N, bins, cells, cells) averages of gradients by orientation, of (N, H, W) grey levels.

    Smoothing and differences are linear and their numbers whole, so they are products with fixed matrices.
    """
    (smooth_down, step_down), (smooth_across, step_across) = map(_sobel, sides)
    across = _add_product(graph, smooth_down, grey, step_across)
    down = _add_product(graph, step_down, grey, smooth_across)
    square = graph.node("Add", graph.node("Mul", across, across), graph.node("Mul", down, down))
    steps = graph.node("Mul", graph.node("Sqrt", square), graph.number(FRACTION))
    turns = graph.node("Div", _add_angles(graph, across, down), graph.number(2 * math.pi))
    position = graph.node("Mul", turns, graph.number(float(ORIENTATIONS)))
    bins = []
    for orientation in range(ORIENTATIONS):
        away = graph.node("Abs", graph.node("Sub", position, graph.number(float(orientation))))
        round_about = graph.node("Sub", graph.number(float(ORIENTATIONS)), away)
        near = graph.node("Sub", graph.number(1.0), graph.node("Min", away, round_about))
        share = graph.node("Max", near, graph.number(0.0))
        whole = graph.node("Round", graph.node("Mul", share, steps))
        bins.append(graph.node("Unsqueeze", _add_average(graph, whole, CELLS, sides), graph.shape(1)))
    return graph.node("Div", graph.node("Concat", *bins, axis=1), graph.number(FRACTION))


def _add_angles(graph: Graph, x: str, y: str) -> str:
    """Add the angles of vectors, from minus the x axis on, by the descriptor's own series."""
    wide, high = graph.node("Abs", x), graph.node("Abs", y)
    longer = graph.node("Max", graph.node("Max", wide, high), graph.number(1.0))
    ratio = graph.node("Div", graph.node("Min", wide, high), longer)
    square = graph.node("Mul", ratio, ratio)
    series = graph.number(0.0)
    for coefficient in ARC_TANGENT:
        series = graph.node("Add", graph.node("Mul", series, square), graph.number(coefficient))
    angle = graph.node("Mul", series, ratio)
    nothing, half = graph.number(0.0), graph.number(math.pi)
    steep = graph.node("Sub", graph.number(math.pi / 2), angle)
    angle = graph.node("Where", graph.node("Greater", high, wide), steep, angle)
    angle = graph.node("Where", graph.node("Less", x, nothing), graph.node("Sub", half, angle), angle)
    below, above = graph.node("Sub", half, angle), graph.node("Add", half, angle)
    return graph.node("Where", graph.node("Less", y, nothing), below, above)


def _add_average(graph: Graph, numbers: str, cells: int, sides: tuple[int, int]) -> str:
    """Add averages of (..., H, W) whole numbers over a grid of cells."""
    rows, columns = (windows(side, cells) for side in sides)
    counts = rows.sum(1)[:, None] * columns.sum(1)
    return graph.node("Div", _add_product(graph, rows, numbers, columns), graph.constant(counts))


def _add_product(graph: Graph, rows: NDArray[np.float64], numbers: str, columns: NDArray[np.float64]) -> str:
    """Add rows @ numbers @ columns, transposed."""
    left = graph.node("MatMul", graph.constant(rows), numbers)
    return graph.node("MatMul", left, graph.constant(np.ascontiguousarray(columns.T)))


def _add_unit(graph: Graph, rows: str) -> str:
    """Add rows scaled to unit length; a row of zeros stays."""
    square = graph.node("ReduceSum", graph.node("Mul", rows, rows), graph.shape(1), keepdims=1)
    return graph.node("Div", rows, graph.node("Max", graph.node("Sqrt", square), graph.number(1e-12)))


def _sobel(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (side, side) matrices that smooth by 1, 2, 1 and that take differences; edges are repeated."""
    eye = np.eye(side)
    before, after = eye[np.maximum(np.arange(side) - 1, 0)], eye[np.minimum(np.arange(side) + 1, side - 1)]
    return before + 2 * eye + after, after - before
