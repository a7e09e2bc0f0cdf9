"""The console of an officer or a site, put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedmunkey.client.console.asking import add_asking
from fedmunkey.client.console.countersigning import add_countersigning
from fedmunkey.client.console.instructing import add_blocks, add_instructing
from fedmunkey.client.console.models_screen import add_models
from fedmunkey.client.console.office import Office
from fedmunkey.client.console.own_figures import add_own_figures
from fedmunkey.common.console.entrance import LinkEntrance
from fedmunkey.common.console.evidence_screens import add_evidence
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.pages import Place
from fedmunkey.common.console.screens import add_screens
from fedmunkey.common.console.session import Viewer
from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.service.console_service import ConsoleService

_TEMPLATES = Path(__file__).with_name("templates")


def make_console(office: Office, service: ConsoleService, *, on_closed: Callable[[], object] | None = None) -> Face:
    """Return an office's console on a deletion service; `on_closed` is called when a session was ended by hand."""
    places = [Place("inbox.title", "/requests"), Place("new.title", "/new")]
    signs = office.is_officer and office.asker.key is not None
    places += [Place("countersign.title", "/countersign")] if signs else []
    places += [Place("standing.title", "/standing")] if signs else []
    places += [Place("evidence.title", "/evidence"), Place("sites.title", "/sites")]
    places += [Place("own.title", "/own"), Place("models.title", "/models")] if office.folder is not None else []
    places += [Place("log.title", "/log"), Place("overview.title", "/overview")]
    viewer = Viewer(office.asker.name, office.asker.name, service)
    face = Face(LinkEntrance(viewer, on_closed), office.asker.name, places, own=[_TEMPLATES])

    def details(_: Visit, status: RequestStatus) -> dict[str, Any]:
        own = status.request.requester == office.asker.name
        return {"note": office.notes.find(status.request.request_id), "own": own}

    add_screens(face, office.read_keys, details, inbox="own_inbox.html", request="own_request.html")
    add_asking(face, office)
    add_evidence(face, office.read_keys, "munkey-client console")
    if signs:
        add_countersigning(face, office)
        add_instructing(face, office)
    add_blocks(face)
    if office.folder is not None:
        add_own_figures(face, office.folder)
        add_models(face, office.folder)
    return face
