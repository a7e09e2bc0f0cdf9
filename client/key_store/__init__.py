"""A site's key store: one SQLite file, and deletion from it in one transaction."""

from client.key_store.store import Enrolled, KeyStore, StoreDescription, Tokens

__all__ = ["Enrolled", "KeyStore", "StoreDescription", "Tokens"]
