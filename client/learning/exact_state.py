"""Building a site's state anew from what is left, to see that deletions have left nothing behind.

Under `exact` the state after deletions has the same bytes as one that was built without the deleted records. Here the
second one is really built, in a folder of its own, and the digests of both are compared.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.aside import folder_aside
from fedmunkey.client.key_store.on_disk.contents import SLACK
from fedmunkey.client.key_store.on_disk.record_ciphers import KEY_BYTES
from fedmunkey.client.learning.contribution import sum_records
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.learning.own_memory import read_memory
from fedmunkey.client.learning.state_digest import state_digest
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.release import Release, is_release, read_release
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath

_BLOCK = 1024


@dataclass(frozen=True)
class Comparison:
    """The digests, in hexadecimal SHA-256, of a site's state and of the one that was built anew.

    `records` are in both, of all splits; `deleted` ones of the files were left out since the site has deleted them.
    """

    records: int
    deleted: int
    state: str
    built: str

    @property
    def identical(self) -> bool:
        """Whether nothing is left of what was deleted."""
        return self.state == self.built


def read_shared_model(folder: SiteFolder) -> Munkey | None:
    """Return a model with the trained weights that the site has last taken over; None where it has none."""
    path = folder.shared_weights
    return read_checkpoint(path).model() if path.exists() and not is_release(path) else None


def read_shared_release(folder: SiteFolder) -> Release | None:
    """Return the solved weights that the site has last taken over; None where it has none."""
    path = folder.shared_weights
    return read_release(path) if path.exists() and is_release(path) else None


def refresh_tokens(store: KeyStore, model: Munkey, progress: Callable[[int], None] | None = None) -> None:
    """Compute all exemplar tokens of a store; not for sites where tokens are trained together with the weights."""

    def refresh(generation: int) -> None:
        entries, _ = store.records.read_entries(Split.TRAIN)
        tokens = own_tokens(model, store.records.read_inputs(entries), progress=progress)
        store.records.write_tokens(generation, entries, tokens)

    store.until_unchanged(refresh)


def compare_with_rebuilt(
    folder: SiteFolder,
    batches: Iterable[tuple[Dataset, Encoding]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Build a site's state anew and compare digests; the site's own store is only read.

    They are of all that its answers depend on: what it holds and, with the weights that it has last taken over, what it
    contributes to the next ones and what its memory adds to their answers.

    `batches` are the site's records as they were enrolled, in the same order, encoded again; those that the site has
    deleted are left out. Without them, the records that the store holds are enrolled again, with their keys and inputs.
    `progress` is called with the number of records finished since the last call. Raises `KeyStoreError` if the site has
    not promised `exact`.
    """
    secret = folder.read_secret()
    release = read_shared_release(folder)
    with folder.open() as store, folder_aside(folder.path, "verifying") as aside:
        promised = store.description.guarantee
        if promised is not Guarantee.EXACT:
            raise KeyStoreError(
                f"{store.description.site} has promised {promised}: only under exact is the state that of never "
                "having held a record, so there is nothing to compare"
            )
        neighbours = store.description.list_length - SLACK
        # Its master key is in memory only: where this process is killed, nobody can read what it leaves.
        master_key = secrets.token_bytes(KEY_BYTES)
        with KeyStore.create(aside / "keystore.sqlite", store.description, master_key=master_key) as built:
            deleted = 0
            for records, encoding in batches if batches is not None else _held(store):
                kept = ~_deleted(store, records, secret)
                deleted += int((~kept).sum())
                chosen = torch.from_numpy(kept)
                some = Encoding(encoding.keys[chosen], encoding.features[chosen])
                built.records.enrol(records.select(kept), some, secret)
                if progress is not None:
                    progress(len(records))
            count = sum(store.records.count(split) for split in Split)
            return Comparison(count, deleted, *(_whole_digest(each, neighbours, release) for each in (store, built)))


def _whole_digest(store: KeyStore, neighbours: int, release: Release | None) -> str:
    """Return a digest of what a store holds and of what follows from it."""
    digested = hashlib.sha256(state_digest(store, neighbours).encode())
    if release is not None:
        made = sum_records(store, release.feature_map, release.classes, permanent_only=False)
        memory, _ = read_memory(store, release)
        digested.update(made.sums.digest().encode())
        digested.update(f"{memory.kernel} {memory.temperature}".encode())
        digested.update(memory.weights.tobytes() + memory.tokens.tobytes())
    return digested.hexdigest()


def _deleted(store: KeyStore, records: Dataset, secret: FederationSecret) -> NDArray[np.bool_]:
    """Say which records the site has deleted, by themselves or with their subject."""
    pairs = zip(records.record_ids.tolist(), records.subject_ids.tolist(), strict=True)
    references = [(secret.reference(record), secret.reference(subject)) for record, subject in pairs]
    gone = [
        # New consent lets a record in whose subject or image stays deleted.
        store.records.has_deleted(record)
        or (
            (store.records.refuses(record, subject) or store.records.has_deleted_image(image))
            and not store.records.holds(record)
        )
        for (record, subject), image in zip(references, records.images, strict=True)
    ]
    return np.array(gone, dtype=np.bool_)


def _held(store: KeyStore) -> Iterator[tuple[Dataset, Encoding]]:
    """Yield the records of a store as they were enrolled, in the order of their entries."""
    described = [(split, *store.records.read_entries(split)) for split in Split]
    entries = np.concatenate([some for _, some, _ in described])
    order = np.argsort(entries)
    labels = np.concatenate([some.numpy() for _, _, some in described])[order]
    splits = np.concatenate([np.full(len(some), split.value) for split, some, _ in described])[order]
    names = tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
    patches = store.description.image_path is ImagePath.PATCHES
    for rows in np.array_split(order, math.ceil(len(order) / _BLOCK) or 1):
        part = entries[rows]
        inputs, keys = store.records.read_inputs(part), store.records.read_keys(part)
        ids = np.array(store.records.read_ids(part), dtype=np.str_).reshape(len(part), 2)
        permanent = store.records.read_permanent(part)
        # On the frozen path a store holds no image, and enrolling needs none.
        images = inputs.numpy() if patches else np.zeros((len(part), 1, 1, 1), dtype=np.uint8)
        place = np.searchsorted(entries[order], part)
        records = Dataset(
            images=images,
            labels=labels[place],
            record_ids=ids[:, 0],
            subject_ids=ids[:, 1],
            splits=splits[place],
            consents=np.where(permanent, Consent.PERMANENT.value, Consent.REVOCABLE.value),
            class_names=names,
        )
        yield records, Encoding(keys, torch.empty(len(part), 0) if patches else inputs)
