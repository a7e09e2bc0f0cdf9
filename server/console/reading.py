"""What somebody may read of the coordinator: lists from the ledger, what is signed from the deletion service.

The same table decides as for calls over gRPC (`server.members.entitlements`). Nothing is asked for here, and nothing is
answered: whoever may, does that with a key of their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from fedmunkey.common.deletions.listing import Moved, Overview, RequestQuery, RequestsFound, SiteQuery, SitesFound
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionOrder,
    DeletionRequest,
    Move,
    RequestStatus,
)
from fedmunkey.common.errors import NotAllowed
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.proofs.log_heads import LogUpdate
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.deletion_service import DeletionService, StatusPage
from fedmunkey.protos import deletion_pb2
from fedmunkey.server.ledger.addressees import addressee_reader
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.ledger.moves import LedgerMoves
from fedmunkey.server.members.entitlements import Caller, may_call

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a console reads: the ledger, and the deletion service, which has the key of the log.

    `ended` is set when streams of what moves are to end.
    """

    ledger: Ledger
    signed: DeletionService
    moves: LedgerMoves
    ended: threading.Event

    @classmethod
    def of(cls, ledger: Ledger, signed: DeletionService) -> Sources:
        """Return them for a ledger and a service."""
        return cls(ledger, signed, LedgerMoves(ledger), threading.Event())


def reader_of(caller: Caller) -> str:
    """Return as whom a member reads, as `RequestQuery.reader`."""
    own = {MemberRole.COORDINATOR: "", MemberRole.OFFICER: OFFICER}
    return own.get(caller.role, caller.name)


class Reading(ConsoleService):
    """What one caller may read; raises `NotAllowed` for all else."""

    def __init__(self, sources: Sources, caller: Caller) -> None:
        self._sources = sources
        self._caller = caller
        self._addressed = addressee_reader(sources.ledger.engine)

    def get(self, request_id: str) -> RequestStatus:
        """Return one request's status."""
        self._check("Get", deletion_pb2.GetRequest(request_id=request_id))
        return self._sources.ledger.status(request_id)

    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first."""
        self._check("History", deletion_pb2.HistoryRequest(request_id=request_id))
        return self._sources.ledger.history(request_id)

    def find(self, query: RequestQuery) -> RequestsFound:
        """Return a page of requests; see `ConsoleService.find`."""
        self._check("Find", deletion_pb2.FindRequest(reader=query.reader))
        return self._sources.ledger.find(query)

    def moves(self, reader: str, after: int = 0) -> Iterator[Moved]:
        """Yield what moves until the console ends; see `ConsoleService.moves`."""
        self._check("Follow", deletion_pb2.FollowRequest(reader=reader))
        return self._sources.moves.follow(reader, after, self._sources.ended)

    def sites(self, query: SiteQuery) -> SitesFound:
        """Return a page of the sites; see `ConsoleService.sites`."""
        self._check("ListSites", deletion_pb2.ListSitesRequest(reader=query.reader))
        return self._sources.ledger.site_summaries(query)

    def overview(self, reader: str) -> Overview:
        """Return counts; see `ConsoleService.overview`."""
        self._check("GetOverview", deletion_pb2.GetOverviewRequest(reader=reader))
        return self._sources.ledger.overview(reader)

    def log_update(self, seen_size: int, leaves: Sequence[bytes] = ()) -> LogUpdate | None:
        """Return the log's head with proofs; see `DeletionService.log_update`."""
        self._check("GetLogHead", deletion_pb2.GetLogHeadRequest(seen_size=seen_size))
        return self._sources.signed.log_update(seen_size, leaves)

    def certificate(self, request_id: str) -> bytes:
        """Return a request's certificate; see `DeletionService.certificate`."""
        self._check("GetCertificate", deletion_pb2.GetCertificateRequest(request_id=request_id))
        return self._sources.signed.certificate(request_id)

    def submit(self, request: DeletionRequest) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        raise self._only_reads("ask for anything", "munkey-client forget, and munkey-client console")

    def page(self, page: str = "", size: int = 100, *, late: bool = False) -> StatusPage:  # noqa: ARG002
        """Refuse: whole requests are listed by the service alone."""
        raise self._only_reads("list whole requests", "munkey-server requests")

    def watch(self, site: str, after: int, *, follow: bool = False, chain: bytes = b"") -> Iterator[DeletionOrder]:  # noqa: ARG002
        """Refuse."""
        raise self._only_reads("follow orders", "munkey-client agent")

    def acknowledge(self, acknowledgement: Acknowledgement) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        raise self._only_reads("answer orders", "munkey-client agent")

    def open_round(self, number: int) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        raise self._only_reads("open rounds", "munkey-server run")

    def _check(self, call: str, message: object) -> None:
        refusal = may_call(call, message, self._caller, self._addressed)
        if refusal is not None:
            # Not the reason: it names a request, whose id a person chose.
            _log.warning("refused %s to %s %s: %s", call, self._caller.role, self._caller.name, refusal.cause)
            raise NotAllowed(refusal.reason)

    def _only_reads(self, what: str, way: str) -> NotAllowed:
        return NotAllowed(f"{self._caller.role} {self._caller.name} cannot {what} in this console: {way} does")
