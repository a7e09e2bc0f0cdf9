"""How an exported model reads pictures: by the descriptor, or by an encoder's network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedmunkey.client.predicting.exporting.descriptor_graph import add_descriptor
from fedmunkey.client.predicting.exporting.encoder_network import network_of
from fedmunkey.client.predicting.exporting.graph import Graph
from fedmunkey.client.predicting.exporting.picture_graph import add_encoder, add_keys
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.encoders.descriptor import DescriptorEncoder
from fedmunkey.common.model.encoders.image_model import ImageModelEncoder
from fedmunkey.common.settings.settings import ImageShape


@dataclass(frozen=True)
class Reader:
    """An encoder that can be written in ONNX; `network` is that of an image model, None of the descriptor."""

    encoder: Encoder
    network: Any = None

    def add(self, graph: Graph, images: str, shape: ImageShape) -> tuple[str, str]:
        """Add what it makes of (N, C, H, W) images; return the names of keys and features."""
        if not isinstance(self.encoder, ImageModelEncoder):
            return add_descriptor(graph, images, shape)
        features = add_encoder(graph, self.encoder, self.network, images, shape)
        return add_keys(graph, self.encoder, features), features


def reader_of(encoder: Encoder) -> tuple[Reader | None, str]:
    """Return how an encoder's pictures are read; or None, and why they cannot be."""
    if isinstance(encoder, DescriptorEncoder):
        return Reader(encoder), ""
    network, why = network_of(encoder)
    return (None, why) if network is None else (Reader(encoder, network), "")
