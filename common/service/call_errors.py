"""Between the errors of `common.errors` and gRPC's statuses, both ways: the one place that maps them.

A service ends a call with the status of an error and its message; the other side makes of them an error whose message
is the next step of the person at the keyboard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc

from fedmunkey.common.errors import (
    DeletionConflict,
    DeletionExists,
    FedmunkeyError,
    InvalidIdentity,
    InvalidProof,
    NotAllowed,
    ServiceUnavailable,
    UnknownDeletion,
)
from fedmunkey.common.service.foreign_text import printable

_STATUSES: tuple[tuple[type[FedmunkeyError], grpc.StatusCode], ...] = (
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (InvalidIdentity, grpc.StatusCode.PERMISSION_DENIED),
    (InvalidProof, grpc.StatusCode.PERMISSION_DENIED),
    (UnknownDeletion, grpc.StatusCode.NOT_FOUND),
    (DeletionExists, grpc.StatusCode.ALREADY_EXISTS),
    (DeletionConflict, grpc.StatusCode.FAILED_PRECONDITION),
    (ServiceUnavailable, grpc.StatusCode.UNAVAILABLE),
    (FedmunkeyError, grpc.StatusCode.INVALID_ARGUMENT),
)
_REFUSALS = {status for _, status in _STATUSES} - {grpc.StatusCode.UNAVAILABLE}

_log = logging.getLogger(__name__)


def ending(error: Exception, service: str) -> tuple[grpc.StatusCode, str]:
    """Return status and message with which a service ends a call that failed with an error.

    Of what went wrong inside, the caller learns nothing; it is logged for whoever runs the service.
    """
    if not isinstance(error, FedmunkeyError):
        _log.error("a call to the %s failed", service, exc_info=error)
        return grpc.StatusCode.INTERNAL, f"the {service} failed; its log says why"
    return next(status for kind, status in _STATUSES if isinstance(error, kind)), str(error)


def status_of(error: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status of a call that gRPC says has failed, and its message in one line."""
    return error.code(), printable(" ".join((error.details() or "").split()))


def explain(
    error: Any,
    service: str,
    way_out: str,
    *,
    refused: type[FedmunkeyError],
    seconds: float,
    find_fault: Callable[[str], str],
    nobody: str = "",
) -> FedmunkeyError:
    """Return what a call that gRPC says has failed means for its caller.

    `service` names whom it has called, `way_out` says what to do where that cannot answer. A refusal becomes an error
    of the class `refused`, or `NotAllowed` where that is such a class and the caller may not; so does a service that
    does not know the call, where `nobody` says what that means.
    `find_fault` is asked why no connection comes about, as `Connection.fault`.
    """
    status, details = status_of(error)
    if status in _REFUSALS:
        if status is grpc.StatusCode.PERMISSION_DENIED and issubclass(NotAllowed, refused):
            refused = NotAllowed
        return refused(details or f"{service} refused the call ({status.name})")
    if nobody and status is grpc.StatusCode.UNIMPLEMENTED:
        return refused(nobody)
    if status is grpc.StatusCode.UNAVAILABLE:
        if fault := find_fault(details):
            return ServiceUnavailable(f"{service} {fault}")
        fault = "cannot be reached"
    elif status is grpc.StatusCode.DEADLINE_EXCEEDED:
        fault = f"did not answer within {seconds:g} seconds"
    elif status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServiceUnavailable(f"{service} refused the call: {details}")
    else:
        fault = f"failed ({status.name}: {details})"
    return ServiceUnavailable(f"{service} {fault}: {way_out}")
