"""The clock that everything reads which is not given another one."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time of the system clock, in UTC."""
    return datetime.now(UTC)
