"""What the ledger refuses."""

from fedmunkey.common.errors import DeletionConflict, DeletionExists, UnknownDeletion

__all__ = ["DeletionConflict", "DeletionExists", "UnknownDeletion"]
