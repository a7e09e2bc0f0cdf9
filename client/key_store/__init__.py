"""A site's key store: one SQLite file, and deletion from it in one transaction."""

from fedmunkey.client.key_store.contents import Enrolled, StoreDescription, Tokens
from fedmunkey.client.key_store.store import KeyStore

__all__ = ["Enrolled", "KeyStore", "StoreDescription", "Tokens"]
