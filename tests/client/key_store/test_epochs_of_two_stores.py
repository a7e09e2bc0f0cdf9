"""The key file of a store that is no more is refused by the one made in its place, whose header fits both."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.journal import Journal
from fedmunkey.client.key_store.on_disk.record_ciphers import cipher_file_of
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.errors import KeyStoreError


@pytest.mark.parametrize("lost", ["journal", "nothing"])
@pytest.mark.parametrize("destroyed", [0, 1, 3])
def test_key_file_of_an_earlier_store_is_refused(
    make_store: Callable[..., KeyStore],
    fill: Callable[..., Dataset],
    order: Callable[..., DeletionOrder],
    destroyed: int,
    lost: str,
) -> None:
    store = make_store()
    fill(store, range(5))
    for _ in range(destroyed):
        # As a deletion does that is interrupted before anybody knows its epoch.
        store.ciphers.destroy([])
    store.close()
    earlier = cipher_file_of(store.path).read_bytes()
    for file in (store.path, cipher_file_of(store.path)):
        file.unlink()
    with KeyStore.create(store.path, store.description) as again:
        assert again.reference_hashes == store.reference_hashes
        fill(again, range(5))
        again.orders.apply(order(1, 1))
        kept = cipher_file_of(again.path).read_bytes()
    if lost == "journal":
        Journal(store.path).path.unlink()

    cipher_file_of(store.path).write_bytes(earlier)
    with pytest.raises(KeyStoreError, match=r"keystore\.keys is an older copy"):
        KeyStore.open(store.path)

    cipher_file_of(store.path).write_bytes(kept)
    KeyStore.open(store.path).close()
