"""More time for a request, once, as `munkey-server extend` gives it."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import request_path
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.server.ledger.ledger import Ledger


def add_more_time(face: Face, ledger: Ledger) -> None:
    """Add it to the operator's console."""
    face.post("/extend", lambda visit: _extend(visit, ledger))


def _extend(visit: Visit, ledger: Ledger) -> Response:
    form = visit.form
    request_id, days = form.one("request"), form.one("days")
    try:
        # What is no number is as little possible as 0 days.
        status = ledger.extend(request_id, int(days) if days.isascii() and days.isdigit() else 0, form.one("reason"))
    except InvalidDeletion as error:
        visit.session.say("bad", str(error))
        return see(request_path(request_id))
    visit.session.say("good", visit.texts("extend.done", day=f"{status.due_at:%Y-%m-%d}"))
    return see(request_path(request_id))
