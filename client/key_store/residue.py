"""Finding the bytes of deleted contents in any file, without keeping them.

Of every content that an order deletes, as it was encrypted and as it was in the clear, some windows of 16 bytes are
remembered by two hashes under a key of the store: 24 bits that can be computed at every offset of a file at once, and
16 bytes of keyed BLAKE2b (RFC 7693) that say whether it is the window. Neither gives a byte of the window away.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.key_store.on_disk.raw_reading import opened_raw

WINDOW = 16
_EVERY = 512
"""Bytes between two windows: at least one lies whole on each page of 1024 bytes over which SQLite spreads a content."""

_FEWEST_VALUES = 6
"""Different bytes in a window that is worth looking for; others, of zeros say, are in every file."""

_MOST_WINDOWS = 65_536

MOST_FINGERPRINTED = 4096
"""Records of one order of whose bytes something is remembered; of more, as many are chosen, evenly spread."""

_PACKED = 1 + 3 + 16
_CHUNK = 2 * 2**20


class Residue(StrEnum):
    """What the bytes that are looked for were."""

    KEY = "key"
    INPUT = "input"
    TOKEN = "token"  # noqa: S105 (an exemplar token)
    IDS = "ids"
    RECORD_KEY = "record key"
    SEALED_KEY = "encrypted key"
    SEALED_INPUT = "encrypted input"
    SEALED_TOKEN = "encrypted token"  # noqa: S105 (an exemplar token)
    SEALED_IDS = "encrypted ids"
    WRAPPED_KEY = "wrapped record key"


_KINDS = tuple(Residue)
_PLACES = {kind: place for place, kind in enumerate(_KINDS)}


@dataclass(frozen=True)
class Found:
    """Bytes of a deleted content: the file that holds them, where in it, in bytes, and what they are of."""

    path: Path
    offset: int
    what: Residue


T = TypeVar("T")


def spread(everything: Sequence[T], most: int) -> Sequence[T]:
    """Return all of something, or `most` of it, evenly spread."""
    count = len(everything)
    return everything if count <= most else [everything[place * count // most] for place in range(most)]


def fingerprint(hash_key: bytes, contents: Iterable[tuple[Residue, bytes]]) -> tuple[bytes, int]:
    """Return what to remember of some contents, and how many windows they have.

    Of more than 65,536 windows only as many are remembered, drawn evenly, and never more are held in memory.
    """
    draw = random.Random(hash_key)  # noqa: S311 (spreads, hides nothing)
    chosen: list[tuple[Residue, bytes]] = []
    total = 0
    for kind, content in contents:
        for window in _windows(content):
            # Algorithm R (Vitter 1985): each window is as likely to be kept as any other.
            if total < _MOST_WINDOWS:
                chosen.append((kind, window))
            elif (place := draw.randrange(total + 1)) < _MOST_WINDOWS:
                chosen[place] = (kind, window)
            total += 1
    if not chosen:
        return b"", 0
    weak = _weak(np.frombuffer(b"".join(window for _, window in chosen), np.uint8), hash_key)[::WINDOW]
    strong = _strong(hash_key)
    packed = np.empty((len(chosen), _PACKED), dtype=np.uint8)
    packed[:, 0] = [_PLACES[kind] for kind, _ in chosen]
    packed[:, 1:4] = weak.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    packed[:, 4:] = np.frombuffer(b"".join(strong(window) for _, window in chosen), np.uint8).reshape(-1, 16)
    return packed.tobytes(), total


def search_file(path: Path, hash_key: bytes, remembered: bytes) -> Iterator[Found]:
    """Yield where a file holds a remembered window; raises `OSError` if it cannot be read."""
    strong = _strong(hash_key)
    known: dict[bytes, Residue] = {}
    table = np.zeros(2**24, dtype=np.bool_)
    for start in range(0, len(remembered), _PACKED):
        part = remembered[start : start + _PACKED]
        known[part[4:]] = _KINDS[part[0]]
        table[int.from_bytes(part[1:4], "little")] = True
    with opened_raw(path) as file:
        before, offset = b"", 0
        while chunk := file.read(_CHUNK):
            content = before + chunk
            tried: dict[bytes, Residue | None] = {}
            for place in table[_weak(np.frombuffer(content, np.uint8), hash_key)].nonzero()[0].tolist():
                window = content[place : place + WINDOW]
                if window not in tried:
                    tried[window] = known.get(strong(window))
                if (what := tried[window]) is not None:
                    yield Found(path, offset - len(before) + place, what)
            offset += len(chunk)
            before = content[-(WINDOW - 1) :]


def _windows(content: bytes) -> Iterator[bytes]:
    last = len(content) - WINDOW
    if last < 0:
        return
    for start in sorted({*range(0, last, _EVERY), last // 2, last}):
        window = content[start : start + WINDOW]
        if len(set(window)) >= _FEWEST_VALUES:
            yield window


def _weak(content: NDArray[np.uint8], hash_key: bytes) -> NDArray[np.uint64]:
    """Return 24 bits for the window at every offset."""
    count = len(content) - WINDOW + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    words = np.ndarray((count + 8,), dtype="<u8", buffer=content.data, strides=(1,))
    drawn = np.frombuffer(hmac.digest(hash_key, b"residue weak", "sha256"), "<u8")[:3] | np.uint64(1)
    mixed = words[:count] * drawn[0]
    mixed ^= words[8:] * drawn[1] >> np.uint64(7)
    mixed *= drawn[2]
    found: NDArray[np.uint64] = mixed >> np.uint64(40)
    return found


def _strong(hash_key: bytes) -> Callable[[bytes], bytes]:
    """Return what gives 16 bytes for a window."""
    keyed = hashlib.blake2b(key=hash_key, digest_size=16, person=b"residue")

    def digest(window: bytes) -> bytes:
        hashed = keyed.copy()
        hashed.update(window)
        return hashed.digest()

    return digest
