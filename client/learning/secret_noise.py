"""Randomness of DP-SGD that nobody outside the site can predict.

Differential privacy holds against those who know neither which records were sampled nor the noise. The coordinator
knows the seed of the run, so torch's generator must not draw either.
"""

from __future__ import annotations

import hmac
import json

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.common.errors import brought_by

_BYTES_OF_NUMBER = 8
# With one bit more, the highest number would be rounded to 1.
_BITS = 52


class SecretNoise:
    """A stream of random numbers from a secret key, the same for the same key and labels.

    The numbers come from the keystream of ChaCha20 (RFC 8439), whose key is the HMAC-SHA256 of the labels under `key`
    and whose nonce is 0. Streams with other labels are independent; 1 and "1" are two labels. `uniform` and `normal`
    read from the one stream, each where the last call stopped, so that two calls for 5 numbers equal one for 10.

    Give each sum that leaves the site labels of its own: the difference of two sums with the same noise has none.

    The key is a secret of the site, of at least 16 random bytes; a shorter one raises `ValueError`.
    """

    def __init__(self, key: bytes, *labels: str | int) -> None:
        if len(key) < 16:
            raise ValueError(f"key must have at least 16 bytes, not {len(key)}")
        stream_key = hmac.digest(key, json.dumps(labels).encode(), "sha256")
        self._keystream = Cipher(ChaCha20(stream_key, bytes(16)), mode=None).encryptor()

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return float64 numbers above 0 and below 1, each the middle of one of 2^52 equal intervals."""
        words = np.frombuffer(self._keystream.update(bytes(_BYTES_OF_NUMBER * count)), dtype="<u8")
        return ((words >> np.uint64(64 - _BITS)).astype(np.float64) + 0.5) * 2.0**-_BITS

    def normal(self, count: int) -> Tensor:
        """Return standard normal numbers in float32, shape (count,), by inverting float64 uniform ones.

        They stop at 8.2 standard deviations, which an exact Gaussian exceeds once in 4.5e15 numbers. Attacks on the
        gaps between floating-point numbers (Mironov 2012, "On significance of the least significant bits for
        differential privacy") are out of scope: nothing here defends against them.
        """
        with brought_by("certified", "what draws the noise of guarantee = certified"):
            from scipy import special
        return torch.from_numpy(special.ndtri(self.uniform(count)).astype(np.float32))
