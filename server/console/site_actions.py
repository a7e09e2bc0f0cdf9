"""Sites that join the federation's list, and sites that leave it, as `munkey-server sites` does it."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import address
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.server.ledger.ledger import Ledger


def add_site_actions(face: Face, ledger: Ledger) -> None:
    """Add them to the operator's console."""
    face.post("/sites/add", lambda visit: _add(visit, ledger))
    face.post("/sites/remove", lambda visit: _remove(visit, ledger))


def _add(visit: Visit, ledger: Ledger) -> Response:
    name = visit.form.one("site")
    try:
        ledger.register(name)
    except InvalidDeletion as error:
        visit.session.say("bad", str(error))
        return see("/sites")
    visit.session.say("good", visit.texts("sites.added", site=name))
    return see(address("/sites", name=name))


def _remove(visit: Visit, ledger: Ledger) -> Response:
    """Let a site leave whose name was typed twice."""
    name = visit.form.one("site")
    if visit.form.one("word") != name:
        visit.session.say("bad", visit.texts("sites.not-confirmed", site=name))
        return see("/sites")
    try:
        left = ledger.remove(name, visit.form.one("reason"))
    except InvalidDeletion as error:
        visit.session.say("bad", str(error))
        return see("/sites")
    visit.session.say("good", visit.texts("sites.removed", site=name, count=left))
    return see(address("/sites", name=name))
