"""Enrolling records: images are encoded once, and keys, inputs and ids go into the key store batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from fedmunkey.client.key_store import Enrolled, KeyStore
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders import Encoder, Encoding


def encode(encoder: Encoder, dataset: Dataset) -> Iterator[tuple[Dataset, Encoding]]:
    """Yield a data set in batches together with their keys and features."""
    for batch in dataset.batches():
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

    References by which deletion orders name records and subjects are made with the secret. `new_consent` are ids of
    records for which consent was given anew after a deletion; `progress` is called with the number of records finished
    since the last call.
    """
    enrolled = Enrolled()
    for batch, encoding in batches:
        enrolled += store.records.enrol(batch, encoding, secret, new_consent=new_consent)
        if progress is not None:
            progress(len(batch))
    return enrolled
