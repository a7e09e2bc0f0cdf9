"""What a console needs of the deletion service beside what sites and requesters call: lists, and word of what moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from fedmunkey.common.deletions.listing import Moved, Overview, RequestQuery, RequestsFound, SiteQuery, SitesFound
from fedmunkey.common.deletions.words import Move
from fedmunkey.common.service.deletion_service import DeletionService


class ConsoleService(DeletionService):
    """The deletion service as people look at it; raises as `DeletionService`."""

    @abstractmethod
    def history(self, request_id: str) -> tuple[Move, ...]:
        """Return what happened to a request, oldest first; raises `InvalidDeletion` if there is no such request."""

    @abstractmethod
    def find(self, query: RequestQuery) -> RequestsFound:
        """Return a page of the requests that a reader may see: open ones first, by when they are due, then the newest.

        A page behind the last one is empty.
        """

    @abstractmethod
    def moves(self, reader: str, after: int = 0) -> Iterator[Moved]:
        """Yield which requests of a reader move: from now on, or after an event of the ledger.

        The first names no request, and says from which event on the others follow.
        """

    @abstractmethod
    def sites(self, query: SiteQuery) -> SitesFound:
        """Return a page of the sites, or for a site itself, as the coordinator knows them."""

    @abstractmethod
    def overview(self, reader: str) -> Overview:
        """Return how many of a reader's requests are in each state, and the last weeks."""
