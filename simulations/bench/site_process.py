"""What a site does in a process of its own, whose memory is measured: it imports the client's side only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.bank import read_bank
from fedmunkey.client.learning.neighbour_index import list_arrivals
from fedmunkey.client.learning.training import train
from fedmunkey.client.site import model_shape
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.bench.memory import peak_memory, resident_memory
from fedmunkey.simulations.bench.synthetic_store import CLASSES

STEPS = 64
"""Training steps after which memory has reached its peak."""


class _EnoughSteps(Exception):  # noqa: N818
    """Ends training early."""


def train_site(path: Path, _progress: Callable[[int], None]) -> int:
    """Do what a site does in a round, cut short, and return this process's peak in bytes."""
    settings = Settings(num_classes=CLASSES, guarantee=Guarantee.EMPIRICAL)
    torch.set_num_threads(1)
    with KeyStore.open(path) as store:
        model = Munkey(model_shape(settings, store.description))
        bank = read_bank(store, Recipe.of(settings).neighbours)
        with suppress(_EnoughSteps):
            train(model, bank, Recipe.of(settings), round_number=1, generator=torch.Generator(), after_step=_stop)
        store.records.write_tokens(bank.generation, bank.entries, bank.tokens)
    return peak_memory()


def build_lists(path: Path, progress: Callable[[int], None]) -> int:
    """List the neighbours of all records and return by how many bytes this process grew."""
    before = resident_memory()
    reported = 0

    def report(_what: str, done: int, _total: int) -> None:
        nonlocal reported
        progress(done - reported)
        reported = done

    with KeyStore.open(path) as store:
        list_arrivals(store, report)
    return peak_memory() - before


def _stop(done: int, _total: int) -> None:
    if done >= STEPS:
        raise _EnoughSteps
