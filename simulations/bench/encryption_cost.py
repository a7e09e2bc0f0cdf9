"""What it costs that records are encrypted: loading a bank, and a training epoch on what was loaded.

The comparison is with the same key store code on a store whose contents are not encrypted, read by turns in one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.encryption import OVERHEAD
from fedmunkey.client.key_store.on_disk.record_ciphers import RecordCiphers
from fedmunkey.client.learning.bank import Bank, read_bank
from fedmunkey.client.learning.training import train
from fedmunkey.client.site import model_shape
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.bench.figure import Bench, Figure, Group, Measured, at_most
from fedmunkey.simulations.bench.synthetic_store import CLASSES, SyntheticStore
from fedmunkey.simulations.bench.timing import alternate, keep_freed_memory, ratio
from fedmunkey.simulations.programs.machine import torch_threads

_LOADING = Figure("encryption-loading", "loading a bank: encrypted over not encrypted", "x", at_most(1.5))
_TRAINING = Figure(
    "encryption-training",
    "a training epoch on the bank that was loaded: encrypted over not encrypted",
    "x",
    at_most(1.05),
)

_KEY_SIZE = 64
_TRAINED_ON = 512


def _measure(bench: Bench) -> Iterator[Measured]:
    keep_freed_memory()
    records, loads, epochs = (300, 2, 2) if bench.quick else (20_000, 7, 15)
    with bench.folder() as folder:
        sealed, plain = folder / "sealed.sqlite", folder / "plain.sqlite"
        filled = SyntheticStore.of_patches(records, key_size=_KEY_SIZE, guarantee=Guarantee.EMPIRICAL)
        secret = FederationSecret.generate()
        with bench.progress.counting("filling key stores", 2 * records) as count:
            filled.write(sealed, secret, count)
            with _in_the_clear():
                filled.write(plain, secret, count)
        with bench.progress.counting("loading banks", loads) as count, torch_threads(1):
            loaded = ratio(
                alternate([lambda: _load(sealed), lambda: _load_plain(plain)], loads, count, clock=time.process_time)
            )
        with bench.progress.counting("training epochs", epochs) as count, torch_threads(1):
            banks = [_first(_load(sealed)), _first(_load_plain(plain))]
            actions = [_epoch(sealed, bank) for bank in banks]
            trained = ratio(alternate(actions, epochs, count, clock=time.process_time))
    note = f"{records:,} entries of keys of {_KEY_SIZE} and default tokens, inputs of 8x8 pixels; processor time"
    yield bench.result(_LOADING, loaded.median, note, **loaded.to_json())
    note = f"{len(banks[0].entries)} entries, processor time; a bank is in memory while it is trained on"
    yield bench.result(_TRAINING, trained.median, note, **trained.to_json())


def _load(path: Path) -> Bank:
    with KeyStore.open(path) as store:
        return read_bank(store, Recipe.of(Settings()).neighbours)


def _load_plain(path: Path) -> Bank:
    with _in_the_clear():
        return _load(path)


def _first(bank: Bank) -> Bank:
    """Return a bank of the first entries, which is trained on in a moment."""
    count = min(_TRAINED_ON, len(bank.entries))
    lists = NeighbourLists(bank.lists.indices[:count].remainder(count), bank.lists.similarities[:count])
    return Bank(
        bank.generation,
        bank.entries[:count],
        bank.labels[:count],
        bank.inputs[:count],
        bank.tokens.select(torch.arange(count)),
        lists,
        bank.permanent[:count],
    )


def _epoch(path: Path, bank: Bank) -> Callable[[], object]:
    settings = Settings(num_classes=CLASSES, guarantee=Guarantee.EMPIRICAL, local_epochs=1)
    with KeyStore.open(path) as store:
        torch.manual_seed(0)
        model = Munkey(model_shape(settings, store.description))
    return lambda: train(model, bank, Recipe.of(settings), round_number=1, generator=torch.Generator().manual_seed(0))


@contextmanager
def _in_the_clear() -> Iterator[None]:
    """Have key stores written and read without encryption, in rows of the same length."""

    def seal(_key: bytes, _table: str, _entry: int, content: bytes) -> bytes:
        return bytes(OVERHEAD) + content

    def unseal(_key: bytes, _table: str, _entry: int, sealed: bytes) -> bytes:
        return sealed[OVERHEAD:]

    def read(_keys: RecordCiphers, entries: NDArray[np.int64]) -> list[bytes]:
        return [b""] * len(entries)

    with (
        patch("fedmunkey.client.key_store.enrolment.seal", seal),
        patch("fedmunkey.client.key_store.on_disk.facts.seal", seal),
        patch("fedmunkey.client.key_store.on_disk.facts.unseal", unseal),
        patch("fedmunkey.client.key_store.records.seal", seal),
        patch("fedmunkey.client.key_store.records.unseal", unseal),
        patch.object(RecordCiphers, "read", read),
    ):
        yield


GROUP = Group("encryption", (_LOADING, _TRAINING), _measure)
