"""The row of a key store that says what it was made for, and the secrets that only this store has."""

from __future__ import annotations

import hmac
import secrets
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from fedmunkey.client.key_store.on_disk.contents import StoreDescription
from fedmunkey.client.key_store.on_disk.encryption import seal, unseal
from fedmunkey.client.key_store.on_disk.record_ciphers import master_key_of, read_master_key
from fedmunkey.client.key_store.on_disk.reference_hashes import ReferenceHashes
from fedmunkey.client.key_store.on_disk.similarity_masks import mask_key_of
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath

_KEY_BYTES = 32


@dataclass(frozen=True)
class StoreSecrets:
    """A key store's description and its own secrets, which never leave the site.

    `master` is the master key, which is in no backup, and `cipher` a key made from it for the store's own secrets.
    `mask_key` hides how alike neighbours are.
    `fixed_noise_key` has 32 bytes, the seed of a simulated site's privacy noise, so that it can be repeated; a real
    site has none. `master_key` says where the master key is kept; None is beside the store.
    """

    description: StoreDescription
    master: bytes = field(repr=False)
    reference_hashes: ReferenceHashes = field(repr=False)
    mask_key: bytes = field(repr=False)
    fixed_noise_key: bytes | None = field(repr=False)
    master_key: Path | None = None

    @property
    def cipher(self) -> bytes:
        """The 32-byte key under which the store's own secrets are encrypted."""
        return cipher_of(self.master)

    def draw_noise_key(self) -> bytes:
        """Return 32 bytes for one training: fresh ones, so that no restored backup gives the same noise twice."""
        return secrets.token_bytes(_KEY_BYTES) if self.fixed_noise_key is None else self.fixed_noise_key


def cipher_of(master: bytes) -> bytes:
    """Return the key, made from a master key, under which a store's own secrets are encrypted."""
    return hmac.digest(master, b"fedmunkey store secrets", "sha256")


def write_description(
    connection: sqlite3.Connection,
    description: StoreDescription,
    master_key: Path | None,
    sealed: tuple[bytes, bytes | None],
) -> None:
    """Write the description of an empty store, the place of its master key, and what `seal_secrets` gives."""
    connection.execute(
        "INSERT INTO description (only, site, encoder, key_size, input_kind, input_shape, exemplar_size, "
        "list_length, guarantee, epsilon, delta, hash_key, noise_key, master_key) "
        "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            description.site,
            description.encoder,
            description.key_size,
            description.image_path.value,
            "x".join(str(size) for size in description.input_shape),
            description.exemplar_size,
            description.list_length,
            description.guarantee.value,
            description.epsilon,
            description.delta,
            *sealed,
            str(master_key.absolute()) if master_key else "",
        ),
    )


def seal_secrets(master: bytes, hash_key: bytes, noise_key: bytes | None) -> tuple[bytes, bytes | None]:
    """Encrypt the key of a store's hashes and its noise key under its master key."""
    cipher = cipher_of(master)
    return seal(cipher, "hash_key", 1, hash_key), seal(cipher, "noise_key", 1, noise_key) if noise_key else None


def find_master_key(connection: sqlite3.Connection, store: Path) -> Path:
    """Return where a store's master key is kept."""
    row = connection.execute("SELECT master_key FROM description").fetchone()
    return Path(row[0]) if row and row[0] else master_key_of(store)


def check_noise_key(noise_key: bytes | None) -> None:
    """Check the length of a noise key that is given; raises `KeyStoreError` without showing the key."""
    if noise_key is not None and len(noise_key) != _KEY_BYTES:
        raise KeyStoreError(f"a noise key has {len(noise_key)} bytes; it must have {_KEY_BYTES}, or be left out")


def read_secrets(connection: sqlite3.Connection, path: Path, master: bytes | None = None) -> StoreSecrets:
    """Return a store's description and secrets; its master key is read from its file, unless it is given.

    Raises `KeyStoreError` if the store was not finished when it was made, or its master key is missing or another.
    """
    row = connection.execute(
        "SELECT site, encoder, key_size, input_kind, input_shape, exemplar_size, list_length, guarantee, epsilon, "
        "delta, hash_key, noise_key, master_key FROM description"
    ).fetchone()
    if row is None:
        raise KeyStoreError(f"{path} was not finished when it was made; remove it and enrol the records again")
    site, encoder, key_size, kind, shape, exemplar_size, list_length, guarantee, epsilon, delta, *own = row
    description = StoreDescription(
        site=site,
        encoder=encoder,
        key_size=key_size,
        image_path=ImagePath(kind),
        input_shape=tuple(int(size) for size in shape.split("x")),
        exemplar_size=exemplar_size,
        list_length=list_length,
        guarantee=Guarantee(guarantee),
        epsilon=epsilon,
        delta=delta,
    )
    hash_key, noise_key, place = own
    master = master or read_master_key(find_master_key(connection, path))
    cipher = cipher_of(master)
    try:
        hashes = ReferenceHashes(unseal(cipher, "hash_key", 1, hash_key))
        noise_key = unseal(cipher, "noise_key", 1, noise_key) if noise_key else None
    except KeyStoreError:
        raise KeyStoreError(
            f"{path} belongs to another key store or another master key; put the files of one store together"
        ) from None
    return StoreSecrets(
        description, master, hashes, mask_key_of(cipher, hash_key), noise_key, Path(place) if place else None
    )
