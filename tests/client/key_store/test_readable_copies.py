"""No other readable copy of a store lies in a site's folder: made in memory, swept after a kill, found where it is."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.key_store.aside import folder_aside, sweep
from fedmunkey.client.key_store.on_disk.record_ciphers import KEY_BYTES, cipher_file_of
from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.deletions.words import DeletionOrder
from fedmunkey.common.errors import KeyStoreError

Fill = Callable[..., Dataset]
Order = Callable[..., DeletionOrder]


def check(store: KeyStore, *folders: Path) -> tuple[str, ...]:
    return store.orders.check_erasure(1, [store.path.parent, *folders]).faults


def test_store_with_a_master_key_in_memory_cannot_be_opened_again(store: KeyStore, fill: Fill, tmp_path: Path) -> None:
    path = tmp_path / "aside" / "keystore.sqlite"
    path.parent.mkdir()
    master = secrets.token_bytes(KEY_BYTES)

    with KeyStore.create(path, store.description, master_key=master) as made:
        fill(made, range(3))
        assert len(made.records.read_ids(np.array([1, 2, 3]))) == 3

    for file in path.parent.iterdir():
        assert master not in file.read_bytes()
        assert master.hex().encode() not in file.read_bytes()
    with pytest.raises(KeyStoreError, match=r"keystore\.master is missing"):
        KeyStore.open(path)


def test_what_a_killed_process_left_aside_is_swept_when_the_store_is_opened(
    store: KeyStore, reopen: Callable[[KeyStore], KeyStore]
) -> None:
    folder = store.path.parent
    for name in (".verifying-abc", ".enrolling-abc"):
        (folder / name).mkdir()
        shutil.copy(cipher_file_of(store.path), folder / name)
    with folder_aside(folder, "verifying") as used:
        reopen(store)
        assert used.exists()

    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_folder_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, seen = fcntl.flock, list[int]()

    def flock(file: int, how: int) -> None:
        if not seen:
            seen.append(file)
            sweep(tmp_path)
        lock(file, how)

    monkeypatch.setattr("fedmunkey.client.key_store.aside.fcntl.flock", flock)

    with folder_aside(tmp_path, "verifying") as made:
        assert list(tmp_path.iterdir()) == [made.parent]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_was_swept_before_it_was_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent opens the key store at the moment at which a backup begins."""
    make, made_first = tempfile.mkdtemp, list[str]()

    def mkdtemp(**options: Any) -> str:
        made = str(make(**options))
        if not made_first:
            made_first.append(made)
            sweep(tmp_path)
        return made

    monkeypatch.setattr("fedmunkey.client.key_store.aside.tempfile.mkdtemp", mkdtemp)

    with folder_aside(tmp_path, "backing-up") as made:
        assert list(tmp_path.iterdir()) == [made.parent]
        assert str(made.parent) not in made_first
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def filled(store: KeyStore, fill: Fill) -> KeyStore:
    fill(store, range(4))
    return store


def test_second_store_of_the_same_records_is_found(
    filled: KeyStore, make_store: Callable[..., KeyStore], fill: Fill, order: Order
) -> None:
    other = make_store()
    fill(other, range(4))
    other.close()
    filled.orders.apply(order(1, 1))
    assert check(filled) == ()

    # Beside the site's folder it is another site's own.
    assert check(filled, other.path.parent) == ()
    copy = filled.path.parent / "kept"
    shutil.copytree(other.path.parent, copy)
    (fault,) = check(filled)

    assert fault.startswith(f"{copy / 'keystore.keys'} is another key file with keys of records")
    # Without its master key nobody can read it.
    (copy / "keystore.master").unlink()
    assert check(filled) == ()


def test_older_copy_of_the_key_file_is_found_wherever_it_lies(filled: KeyStore, order: Order, tmp_path: Path) -> None:
    elsewhere = tmp_path / "offline"
    elsewhere.mkdir()
    shutil.copy(cipher_file_of(filled.path), elsewhere / "copy")
    filled.orders.apply(order(1, 1))

    (fault,) = check(filled, elsewhere)

    assert fault.startswith(f"{elsewhere / 'copy'} is another key file")


def test_hard_link_to_the_key_file_is_no_copy(filled: KeyStore, order: Order) -> None:
    os.link(cipher_file_of(filled.path), filled.path.parent / "link")
    filled.orders.apply(order(1, 1))

    assert check(filled) == ()
