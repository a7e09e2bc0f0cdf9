"""Whom a request concerns: who asked, and which sites it addresses; read without its references."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, exists, select
from sqlalchemy.exc import DBAPIError

from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.server.database.tables import OrderRow, RequestRow


def addressee_reader(engine: Engine) -> Callable[[str, str], tuple[str, bool] | None]:
    """Return a function of a request id and a site's name, for a ledger's database.

    It returns the request's requester and whether the request is addressed to the site, or None if there is no such
    request, and raises `ServiceUnavailable` if the database cannot be used.
    """

    def read(request_id: str, site: str) -> tuple[str, bool] | None:
        concerns = exists().where(OrderRow.request == RequestRow.number, OrderRow.site == site)
        statement = select(RequestRow.requester, concerns.label("concerns")).where(RequestRow.request_id == request_id)
        try:
            with engine.connect() as connection:
                row = connection.execute(statement).first()
        except DBAPIError as error:
            raise ServiceUnavailable(f"the ledger cannot be used: {error.orig}; try again") from None
        return None if row is None else (row.requester, bool(row.concerns))

    return read
