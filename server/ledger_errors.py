"""What the ledger refuses, each kind with a gRPC status of its own."""

from __future__ import annotations

from fedmunkey.common.errors import InvalidDeletion


class UnknownDeletion(InvalidDeletion):
    """There is no such request, order or site; over gRPC `NOT_FOUND`."""


class DeletionConflict(InvalidDeletion):
    """The ledger says otherwise already; over gRPC `FAILED_PRECONDITION`."""


class DeletionExists(DeletionConflict):
    """The request id stands for another request; over gRPC `ALREADY_EXISTS`."""
