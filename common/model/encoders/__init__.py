"""Frozen key encoders, by name.

`make_encoder` is the way in. To add an encoder, add a file with a subclass of `Encoder` and register it here.
"""

from fedmunkey.common.model.encoders.encoder import Encoder, Encoding
from fedmunkey.common.model.encoders.registry import encoder_facts, encoder_names, feature_shape, make_encoder

__all__ = ["Encoder", "Encoding", "encoder_facts", "encoder_names", "feature_shape", "make_encoder"]
