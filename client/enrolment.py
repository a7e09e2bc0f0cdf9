"""Enrolling records: images are encoded once, and keys, inputs and ids go into the key store batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from client.dataset import Dataset
from client.key_store import Enrolled, KeyStore
from common.encoders import Encoder, Encoding
from common.references import FederationSecret

_BATCH = 64


def encode(encoder: Encoder, dataset: Dataset) -> Iterator[tuple[Dataset, Encoding]]:
    """Yield a data set in batches together with their keys and features."""
    for start in range(0, len(dataset), _BATCH):
        batch = dataset.select(np.arange(start, min(start + _BATCH, len(dataset))))
        yield batch, encoder.encode(torch.from_numpy(batch.images))


def enrol(
    store: KeyStore,
    batches: Iterable[tuple[Dataset, Encoding]],
    secret: FederationSecret,
    *,
    new_consent: frozenset[str] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> Enrolled:
    """Add records to a key store; those that it holds or has deleted are left out and counted.

    Parameters
    ----------
    store : KeyStore
        The site's key store.
    batches : iterable
        What `encode` yields.
    secret : FederationSecret
        Makes the references by which deletion orders name records and subjects.
    new_consent : frozenset of str
        Record ids for which consent was given anew after a deletion.
    progress : callable, optional
        Called with the number of records finished since the last call.
    """
    enrolled = Enrolled()
    for batch, encoding in batches:
        enrolled += store.records.enrol(batch, encoding, secret, new_consent=new_consent)
        if progress is not None:
            progress(len(batch))
    return enrolled
