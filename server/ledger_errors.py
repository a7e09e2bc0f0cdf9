"""What the ledger refuses."""

from common.errors import DeletionConflict, DeletionExists, UnknownDeletion

__all__ = ["DeletionConflict", "DeletionExists", "UnknownDeletion"]
