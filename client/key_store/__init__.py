"""A site's key store: one SQLite file, and deletion from it in one transaction."""

from fedmunkey.client.key_store.on_disk.contents import Enrolled, StoreDescription, Tokens
from fedmunkey.client.key_store.orders import AppliedOrders
from fedmunkey.client.key_store.records import HeldRecords
from fedmunkey.client.key_store.store import KeyStore

__all__ = ["AppliedOrders", "Enrolled", "HeldRecords", "KeyStore", "StoreDescription", "Tokens"]
