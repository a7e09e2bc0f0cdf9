"""Key stores of any size, filled with random records.

Neighbours are random entries instead of the nearest ones, because an exact search over a million keys takes hours; as
in a real store, an entry is in about as many other entries' lists as it has entries in its own, whatever the size.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore, StoreDescription, Tokens
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.key_store.on_disk.schema import connect
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, DeletionRequest, Subject
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.neighbours import NeighbourLists
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import ImagePath, Settings

SITE = "hospital-1"
CLASSES = 10

_BLOCK = 4096
_SETTINGS = Settings()
_DESCRIPTION = StoreDescription(
    site=SITE,
    encoder="synthetic",
    key_size=64,
    image_path=ImagePath.PATCHES,
    input_shape=tuple(_SETTINGS.image_shape),
    exemplar_size=_SETTINGS.exemplar_size,
    list_length=Recipe.of(_SETTINGS).neighbours + SLACK,
    guarantee=_SETTINGS.guarantee,
    epsilon=_SETTINGS.epsilon,
    delta=_SETTINGS.delta,
)


@dataclass(frozen=True)
class SyntheticStore:
    """What a synthetic key store holds: records of the `train` split, numbered from 1.

    The subjects share them; each has every `subjects`-th one. Without neighbour lists all count as just arrived.
    """

    description: StoreDescription
    records: int
    subjects: int
    lists: bool = True

    @classmethod
    def of_patches(cls, records: int, *, key_size: int, records_of_a_subject: int = 1, **sizes: Any) -> SyntheticStore:
        """Return a store of small images; sizes are those of the settings, but for the fields that are given."""
        description = replace(_DESCRIPTION, key_size=key_size, **sizes)
        return cls(description, records, subjects=records // records_of_a_subject)

    @classmethod
    def of_features(cls, records: int, shape: tuple[int, int], *, lists: bool) -> SyntheticStore:
        """Return a store on the frozen path, with a subject for each record."""
        image_path, key_size = ImagePath.FROZEN, shape[0] * shape[1]
        description = replace(_DESCRIPTION, image_path=image_path, input_shape=shape, key_size=key_size)
        return cls(description, records, subjects=records, lists=lists)

    def write(self, path: Path, secret: FederationSecret, progress: Callable[[int], None] | None = None) -> None:
        """Make the key store's file, which must not exist; `progress` is called with the records finished since.

        The secret makes the references of subjects, named as `subject_name` says.
        """
        draws = np.random.default_rng(self.records)
        KeyStore.create(path, self.description).close()
        connection = connect(path)
        with KeyStore(path, connection) as store, _filling(connection):
            for first in range(1, self.records + 1, _BLOCK):
                entries = np.arange(first, min(first + _BLOCK, self.records + 1))
                store.records.enrol(*self._enrolled(entries, draws), secret)
                store.records.write_tokens(store.generation, entries, self._tokens(len(entries), draws))
                if self.lists:
                    lists = self._lists(entries, draws)
                    store.records.write_neighbours(store.generation, entries, lists, np.arange(1, self.records + 1))
                if progress is not None:
                    progress(len(entries))

    def _enrolled(self, entries: NDArray[np.int64], draws: np.random.Generator) -> tuple[Dataset, Encoding]:
        count, sizes = len(entries), self.description
        patches = sizes.image_path is ImagePath.PATCHES
        records = Dataset(
            images=draws.integers(0, 256, (count, *(sizes.input_shape if patches else (1, 1, 1))), np.uint8),
            labels=draws.integers(0, CLASSES, count),
            record_ids=np.array([f"record-{entry}" for entry in entries.tolist()]),
            subject_ids=np.array([subject_name(entry % self.subjects) for entry in entries.tolist()]),
            splits=np.full(count, Split.TRAIN.value),
            consents=np.full(count, Consent.REVOCABLE.value),
            class_names=tuple(str(label) for label in range(CLASSES)),
        )
        keys = torch.from_numpy(draws.standard_normal((count, sizes.key_size), dtype=np.float32))
        shape = (count, 0, 0) if patches else (count, *sizes.input_shape)
        features = torch.from_numpy(draws.standard_normal(shape, dtype=np.float32))
        return records, Encoding(torch.nn.functional.normalize(keys, dim=1), features)

    def _tokens(self, count: int, draws: np.random.Generator) -> Tokens:
        shape = (3, count, self.description.exemplar_size)
        offsets, first, second = torch.from_numpy(draws.standard_normal(shape, dtype=np.float32))
        return Tokens(offsets, first, second, torch.ones(count, dtype=torch.int64))

    def _lists(self, entries: NDArray[np.int64], draws: np.random.Generator) -> NeighbourLists:
        """Return lists of different random entries, as positions among all."""
        length = min(self.description.list_length, self.records - 1)
        # Steps of at least one, of fewer records in all than there are, lead to different entries and never back.
        steps = draws.integers(1, max((self.records - 1) // length, 1) + 1, (len(entries), length))
        positions = (entries[:, None] - 1 + steps.cumsum(1)) % self.records
        similarities = np.sort(draws.random(positions.shape, dtype=np.float32), axis=1)[:, ::-1].copy()
        return NeighbourLists(torch.from_numpy(positions), torch.from_numpy(similarities))


@contextmanager
def _filling(connection: sqlite3.Connection) -> Iterator[None]:
    """Prepare a connection to add a great many rows: indices are made at the end, and a crash may ruin the file."""
    # Lists name entries that are enrolled later, which the foreign keys would refuse.
    for pragma in (
        "foreign_keys = OFF",
        "journal_mode = OFF",
        "synchronous = OFF",
        "temp_store = FILE",
        f"cache_size = {-256 * 1024}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'neighbours' AND sql IS NOT NULL"
    indices = connection.execute(query).fetchall()
    for name, _ in indices:
        connection.execute(f"DROP INDEX {name}")
    yield
    for _, statement in indices:
        connection.execute(statement)


def subject_name(number: int) -> str:
    """Return the id of a synthetic subject, numbered from 0."""
    return f"subject-{number}"


def delete_subject(store: KeyStore, number: int, secret: FederationSecret, records: int) -> float:
    """Delete a subject by the order of that number, and return the seconds, emptying of the store's log included."""
    target = Subject(secret.reference(subject_name(number)))
    order = DeletionOrder(number, SITE, DeletionRequest(f"bench-{number}", OFFICER, target))
    start = time.perf_counter()
    answer = store.orders.apply(order)
    seconds = time.perf_counter() - start
    if answer.entries != records:
        raise AssertionError(f"{answer.entries} entries were deleted")
    return seconds
