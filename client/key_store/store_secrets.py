"""The row of a key store that says what it was made for, and the secrets that only this store has."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from fedmunkey.client.key_store.contents import StoreDescription
from fedmunkey.client.key_store.reference_hashes import ReferenceHashes
from fedmunkey.common.errors import KeyStoreError
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import ImagePath

_KEY_BYTES = 32


@dataclass(frozen=True)
class StoreSecrets:
    """A key store's description and its own secrets, which never leave the site.

    `fixed_noise_key` has 32 bytes, the seed of a simulated site's privacy noise, so that it can be repeated; a real
    site has none. `master_key` says where the master key is kept; None is beside the store.
    """

    description: StoreDescription
    reference_hashes: ReferenceHashes = field(repr=False)
    fixed_noise_key: bytes | None = field(repr=False)
    master_key: Path | None = None

    def draw_noise_key(self) -> bytes:
        """Return 32 bytes for one training: fresh ones, so that no restored backup gives the same noise twice."""
        return secrets.token_bytes(_KEY_BYTES) if self.fixed_noise_key is None else self.fixed_noise_key


def write_description(
    connection: sqlite3.Connection,
    description: StoreDescription,
    noise_key: bytes | None,
    master_key: Path | None,
    hash_key: bytes,
) -> None:
    """Write the description of an empty store, and the key for its hashes."""
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
            hash_key,
            noise_key,
            str(master_key.absolute()) if master_key else "",
        ),
    )


def check_noise_key(noise_key: bytes | None) -> None:
    """Check the length of a noise key that is given; raises `KeyStoreError` without showing the key."""
    if noise_key is not None and len(noise_key) != _KEY_BYTES:
        raise KeyStoreError(f"a noise key has {len(noise_key)} bytes; it must have {_KEY_BYTES}, or be left out")


def read_secrets(connection: sqlite3.Connection, path: Path) -> StoreSecrets:
    """Return a store's description and secrets; raises `KeyStoreError` if it was not finished when it was made."""
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
    return StoreSecrets(description, ReferenceHashes(own[0]), own[1], Path(own[2]) if own[2] else None)
