"""The coordinator's console, put together: its operator's face, and the members' one, which only reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedmunkey.common.console.entrance import LinkEntrance
from fedmunkey.common.console.evidence_screens import add_evidence
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.pages import Place
from fedmunkey.common.console.screens import add_screens
from fedmunkey.common.console.session import Viewer
from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.identities.member_names import COORDINATOR, MemberRole
from fedmunkey.server.console.desk import Desk
from fedmunkey.server.console.members_entrance import MembersEntrance
from fedmunkey.server.console.members_screen import add_members
from fedmunkey.server.console.models_screen import add_models
from fedmunkey.server.console.more_time import add_more_time
from fedmunkey.server.console.reading import Reading, reader_of
from fedmunkey.server.console.site_actions import add_site_actions
from fedmunkey.server.ledger.due import LONGEST_EXTENSION_DAYS
from fedmunkey.server.members.entitlements import Caller
from fedmunkey.server.members.register import MemberRegister

_TEMPLATES = Path(__file__).with_name("templates")
_PROGRAM = "munkey-server console"
_OPERATOR = Caller(MemberRole.COORDINATOR, COORDINATOR)

_REQUESTS = Place("inbox.title", "/requests")
_LAST = (Place("evidence.title", "/evidence"), Place("log.title", "/log"), Place("overview.title", "/overview"))


def make_operators_console(desk: Desk, *, on_closed: Callable[[], object] | None = None) -> Face:
    """Return the face of whoever runs the coordinator; `on_closed` is called when a session was ended by hand."""
    places = [_REQUESTS, Place("sites.title", "/sites")]
    places += [Place("members.title", "/members")] if desk.register is not None else []
    places += [Place("models.title", "/models"), *_LAST]
    viewer = Viewer(reader_of(_OPERATOR), COORDINATOR, Reading(desk.sources, _OPERATOR))
    face = Face(LinkEntrance(viewer, on_closed), COORDINATOR, places, own=[_TEMPLATES])

    def details(_: Visit, status: RequestStatus) -> dict[str, Any]:
        return {"longest": LONGEST_EXTENSION_DAYS, "may_extend": not status.state.final and not status.extension}

    add_screens(face, desk.read_keys, details, request="operators_request.html", sites="operators_sites.html")
    add_evidence(face, desk.read_keys, _PROGRAM)
    add_more_time(face, desk.ledger)
    add_site_actions(face, desk.ledger)
    add_models(face, desk)
    if desk.register is not None and desk.folder is not None:
        add_members(face, desk.register, desk.folder, desk.joining)
    return face


def make_members_console(desk: Desk, register: MemberRegister) -> Face:
    """Return the face of members, who are known by their certificates: what each may read, and nothing to do."""
    entrance = MembersEntrance(register, lambda caller: Reading(desk.sources, caller))
    face = Face(entrance, COORDINATOR, [_REQUESTS, Place("sites.title", "/sites"), *_LAST], own=[_TEMPLATES])
    add_screens(face, desk.read_keys, lambda *_: {})
    add_evidence(face, desk.read_keys, _PROGRAM)
    return face
