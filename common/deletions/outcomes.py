"""What became of a request, and the exit codes by which programs hear of it (docs/operations.md, "Exit codes")."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

from fedmunkey.common.deletions.states import RequestState, SiteState
from fedmunkey.common.errors import EXIT_CODE


class Outcome(IntEnum):
    """What became of a request over all sites that it addresses; the value is the exit code."""

    ERASED = 0
    INVALID = EXIT_CODE
    """Nothing was asked, or shown: what was typed, or a file, cannot be used."""
    NOTHING_HELD = 3
    PARTIAL = 4
    REFUSED = 5
    PENDING = 6
    HELD = 8
    """Nothing was entered: a legal hold is on what was asked for."""

    @classmethod
    def of(cls, sites: Collection[SiteState], records: int) -> Outcome:
        """Return what the states of a request's sites come to, which together have erased some records, or none."""
        state = RequestState.of(sites)
        if state is RequestState.COMPLETED:
            # What counts is what was erased, whatever a site calls it.
            return cls.ERASED if records else cls.NOTHING_HELD
        return {RequestState.PARTIAL: cls.PARTIAL, RequestState.REFUSED: cls.REFUSED}.get(state, cls.PENDING)

    @property
    def word(self) -> str:
        """The outcome as JSON names it."""
        return self.name.lower().replace("_", "-")
