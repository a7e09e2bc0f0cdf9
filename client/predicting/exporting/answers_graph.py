"""What solved weights answer, as nodes in ONNX: the same whole numbers as `common.closed_form` computes."""

from __future__ import annotations

import numpy as np

from fedmunkey.client.predicting.exporting.graph import Graph
from fedmunkey.common.closed_form.feature_map import CONSTANT, EPSILON, SCALE, SCALE_BITS, FeatureMap, RandomProjection
from fedmunkey.common.closed_form.linear_answers import WEIGHT_BITS, WholeWeights


def add_numbers(graph: Graph, read: FeatureMap, key_size: int, keys: str, features: str) -> str:
    """Add what a feature map reads; return the name of (N, size) whole numbers, as 64-bit floats.

    `keys` are (N, key_size) and `features` (N, tokens, numbers), both 32-bit floats; features are not looked at where
    none are read.
    """
    parts = []
    frozen = read.features[0] * read.features[1]
    if frozen:
        parts.append(_add_frozen(graph, features, read.features))
    if read.random:
        parts.append(_add_random(graph, keys, RandomProjection.of(key_size, read.random)))
    # One constant for each record, however many there are.
    first = graph.node("Slice", graph.to_double(keys), graph.shape(0), graph.shape(1), graph.shape(1))
    nothing = graph.node("Mul", first, graph.number(0.0))
    parts.append(graph.node("Add", nothing, graph.number(float(CONSTANT))))
    return graph.node("Concat", *parts, axis=1)


def add_answers(graph: Graph, numbers: str, weights: list[WholeWeights], temperature: float) -> tuple[str, str]:
    """Add scores by the sum of some weights, and return the names of (N, classes) probabilities and (N,) labels."""
    # Sums of whole numbers are exact; they are added to each other once they are scaled, as `Memory` does.
    scaled = graph.number(2.0 ** (SCALE_BITS + WEIGHT_BITS))
    scores = [
        graph.node("Div", graph.node("MatMul", numbers, graph.to_double(graph.constant(one))), scaled)
        for one in weights
    ]
    total = scores[0]
    for more in scores[1:]:
        total = graph.node("Add", total, more)
    probabilities = graph.node(
        "Softmax", graph.node("Div", total, graph.number(temperature)), output="probabilities", axis=1
    )
    return probabilities, graph.node("ArgMax", probabilities, output="label", axis=1, keepdims=0)


def _add_frozen(graph: Graph, features: str, shape: tuple[int, int]) -> str:
    """Add tokens of mean 0 and variance 1, times 2^14 over the root of their number, rounded."""
    tokens, size = shape
    wide = graph.to_double(features)
    count = graph.number(float(size))
    centred = graph.node("Sub", wide, graph.node("Div", _add_sum(graph, wide), count))
    variance = graph.node("Div", _add_sum(graph, graph.node("Mul", centred, centred)), count)
    deviation = graph.node("Sqrt", graph.node("Add", variance, graph.number(EPSILON)))
    flat = graph.node("Reshape", graph.node("Div", centred, deviation), graph.shape(-1, tokens * size))
    return graph.node("Round", graph.node("Mul", flat, graph.number(float(SCALE / np.sqrt(tokens * size)))))


def _add_random(graph: Graph, keys: str, projection: RandomProjection) -> str:
    """Add cosines of random projections, read from their table."""
    whole = graph.node("Round", graph.node("Mul", graph.to_double(keys), graph.number(projection.key_scale)))
    turns = graph.node(
        "Add", graph.node("MatMul", whole, graph.constant(projection.frequencies)), graph.constant(projection.phases)
    )
    steps = graph.node("Floor", graph.node("Div", turns, graph.number(projection.step)))
    length = graph.number(float(len(projection.cosines)))
    rounds = graph.node("Floor", graph.node("Div", steps, length))
    place = graph.to_whole(graph.node("Sub", steps, graph.node("Mul", rounds, length)))
    return graph.node("Gather", graph.constant(projection.cosines), place, axis=0)


def _add_sum(graph: Graph, name: str) -> str:
    """Add sums over the last axis, which is kept."""
    return graph.node("ReduceSum", name, graph.shape(-1), keepdims=1)
