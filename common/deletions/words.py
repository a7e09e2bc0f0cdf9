"""The words of a deletion: what is asked for, what a site is told, what it answers, and the states in between.

No id of a record or a patient appears here: both are named by references (`common.deletions.references`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from fedmunkey.common.deletions.acknowledgement import Acknowledgement
from fedmunkey.common.deletions.outcomes import Outcome
from fedmunkey.common.deletions.references import REFERENCE_BYTES
from fedmunkey.common.deletions.states import RequestState, SiteState
from fedmunkey.common.errors import InvalidDeletion

__all__ = [
    "FORMER_OFFICER",
    "OFFICER",
    "OFFICER_NAMES",
    "Acknowledgement",
    "DeletionOrder",
    "DeletionRequest",
    "Move",
    "Outcome",
    "Records",
    "RequestState",
    "RequestStatus",
    "SiteProgress",
    "SiteState",
    "Subject",
    "Target",
    "WholeSite",
    "requester_of",
]

OFFICER = "officer"
"""The data-protection officer, the one requester that is not a site."""

FORMER_OFFICER = "data-protection-officer"
"""How requests of earlier versions name the officer; digests that are older than `officer` hold this name."""

OFFICER_NAMES = frozenset({OFFICER, FORMER_OFFICER})
"""Names that no site can have."""


@dataclass(frozen=True)
class Records:
    """Some records, at one site or wherever they are held: 32-byte references, at least one; no site is every site."""

    references: frozenset[bytes]
    site: str = ""

    def __post_init__(self) -> None:
        """Check that there is at least one reference and that each has the right length."""
        if not self.references:
            raise InvalidDeletion("a request for records names no record; give at least one")
        _check_references(self.references)


@dataclass(frozen=True)
class Subject:
    """Every record of one subject, at every site."""

    reference: bytes

    def __post_init__(self) -> None:
        """Check the length of the reference."""
        _check_references({self.reference})


@dataclass(frozen=True)
class WholeSite:
    """Everything that one site holds."""

    site: str

    def __post_init__(self) -> None:
        """Check that a site is named."""
        if not self.site:
            raise InvalidDeletion("a request for a whole site names no site")


Target = Records | Subject | WholeSite


def requester_of(name: str) -> str:
    """Return who asks under a name: the officer also under its former one."""
    return OFFICER if name == FORMER_OFFICER else name


def _check_references(references: set[bytes] | frozenset[bytes]) -> None:
    wrong = next((len(reference) for reference in references if len(reference) != REFERENCE_BYTES), None)
    if wrong is not None:
        raise InvalidDeletion(f"a reference has {wrong} bytes; it must have {REFERENCE_BYTES} (HMAC-SHA256)")


@dataclass(frozen=True)
class DeletionRequest:
    """What a requester asks for.

    A second request with the same id is the same request. `requester` is a site's name or `officer`, whose former name
    is read as that. The signature is the requester's DSSE envelope (`common.proofs.signed_requests`), empty if it did
    not sign: two requests that ask for the same are equal, however often they were signed.
    """

    request_id: str
    requester: str
    target: Target
    signature: bytes = field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the request and its requester have names."""
        if not self.request_id or not self.requester:
            raise InvalidDeletion("a deletion request needs a request id and a requester")
        object.__setattr__(self, "requester", requester_of(self.requester))


@dataclass(frozen=True)
class DeletionOrder:
    """What one site receives for one request; a site's orders are numbered from 1 without gaps.

    `answer` is what the ledger has of this site's own answer to it, None if nothing or where it is not at hand.
    """

    number: int
    site: str
    request: DeletionRequest
    answer: Acknowledgement | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class SiteProgress:
    """One site's part in a request's status; `reason` says why the site refused or is out of reach."""

    site: str
    number: int
    state: SiteState
    acknowledgement: Acknowledgement | None = None
    acknowledged_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True)
class RequestStatus:
    """A request and what has become of it at each site.

    Attributes
    ----------
    sites : tuple of SiteProgress
        One for each site that it addresses, in alphabetical order.
    recorded : RequestState, optional
        The request's state in the ledger; None where it is to be derived from the sites.
    due_at : datetime, optional
        When it should have come to an end.
    extension : str
        Why it was given more time, once; empty if it was not.
    renew_by : datetime, optional
        By when the shared weights are renewed without what was erased; None where nothing had to be.
    """

    request: DeletionRequest
    submitted_at: datetime
    sites: tuple[SiteProgress, ...] = field(default=())
    recorded: RequestState | None = None
    due_at: datetime | None = None
    extension: str = ""
    renew_by: datetime | None = None

    @property
    def state(self) -> RequestState:
        """The request's state, derived from its sites where the ledger's is not known."""
        return self.recorded or RequestState.of([progress.state for progress in self.sites])

    @property
    def erased(self) -> int:
        """Records erased so far, over all sites."""
        return sum(progress.acknowledgement.records for progress in self.sites if progress.acknowledgement)

    @property
    def renewal_owed(self) -> bool:
        """Whether everything was erased and the shared weights do not know of it yet."""
        if self.renew_by is None or self.state not in (RequestState.ERASED, RequestState.OVERDUE):
            return False
        return RequestState.of([progress.state for progress in self.sites]) is RequestState.COMPLETED

    @property
    def outcome(self) -> Outcome:
        """What became of it, over all sites; nothing is said before the last of them has answered."""
        return Outcome.of([progress.state for progress in self.sites], self.erased)

    @property
    def seconds(self) -> float | None:
        """Seconds from submission to the last acknowledgement; None while a site has not answered."""
        times = [progress.acknowledged_at for progress in self.sites]
        if not times or None in times:
            return None
        return max((time - self.submitted_at).total_seconds() for time in times if time is not None)


@dataclass(frozen=True)
class Move:
    """One line of a deletion's history, as the ledger keeps it.

    `site` is empty for the request as a whole. `before` and `after` are states, or times where it is a date that was
    moved; `before` is empty where something began. `reason` says why, where the states do not.
    """

    at: datetime
    site: str
    before: str
    after: str
    reason: str = ""
