"""What a store was made for, what its site has promised, and the keys that only it has."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.on_disk.restoration import restore
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath
from tests.client.conftest import Make, Reopen


@pytest.mark.parametrize("guarantee", Guarantee)
@pytest.mark.parametrize("epsilon", [0.1, 3.0, math.inf])
def test_description_survives_reopening(make_store: Make, reopen: Reopen, guarantee: Guarantee, epsilon: float) -> None:
    changes = {"image_path": ImagePath.FROZEN, "input_shape": (4, 6), "list_length": 5}
    store = make_store(guarantee=guarantee, epsilon=epsilon, delta=1e-7, **changes)

    promised = reopen(store).description

    assert promised == store.description
    assert (promised.guarantee, promised.epsilon, promised.delta) == (guarantee, epsilon, 1e-7)
    assert (promised.image_path, promised.input_shape, promised.list_length) == (ImagePath.FROZEN, (4, 6), 5)


def test_restored_backup_does_not_draw_the_same_noise_again(store: KeyStore, tmp_path: Path, reopen: Reopen) -> None:
    backup = tmp_path / "monday.backup"
    store.back_up(backup, datetime(2026, 1, 5, tzinfo=UTC))
    drawn = {store.draw_noise_key() for _ in range(2)}

    restore(backup, store.path)
    drawn |= {one.draw_noise_key() for one in (store, reopen(store)) for _ in range(2)}

    assert len(drawn) == 6
    assert {len(key) for key in drawn} == {32}


def test_noise_key_of_another_length_is_refused_and_not_shown(store: KeyStore, tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="a noise key has 9 bytes; it must have 32") as refused:
        KeyStore.create(tmp_path / "keystore.sqlite", store.description, noise_key=b"too short")

    assert "too short" not in str(refused.value)
    assert not (tmp_path / "keystore.sqlite").exists()


def test_keys_are_not_shown(store: KeyStore) -> None:
    shown = repr(replace(store.database.secrets, fixed_noise_key=bytes(range(32))))

    assert repr(bytes(range(32))) not in shown
    assert repr(store.reference_hashes.key) not in shown
