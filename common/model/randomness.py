"""Seeds for independent random streams, all drawn from the one seed of a run."""

from __future__ import annotations

import hashlib
import json

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream with the given names; different names give independent streams."""
    text = json.dumps([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for the stream with the given names."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
