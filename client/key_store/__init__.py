"""A site's key store: one SQLite file, and deletion from it in one transaction."""

from client.key_store.contents import Enrolled, StoreDescription, Tokens
from client.key_store.orders import AppliedOrders
from client.key_store.records import HeldRecords
from client.key_store.store import KeyStore

__all__ = ["AppliedOrders", "Enrolled", "HeldRecords", "KeyStore", "StoreDescription", "Tokens"]
