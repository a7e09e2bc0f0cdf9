"""Countersigning in the console: another officer's file is read, shown, confirmed by hand, and signed."""

from __future__ import annotations

from fastapi import Response

from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.saved_requests import SavedRequest, saved_bytes
from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import attachment, request_path
from fedmunkey.common.errors import DeletionHeld, FedmunkeyError, InvalidDeletion, InvalidProof


def add_countersigning(face: Face, office: Office) -> None:
    """Add it to an officer's console."""
    face.get("/countersign", lambda visit: visit.draw("countersign.html", saved=None, fault=""))
    face.post("/countersign", _read)
    face.get("/countersign/{draft}", lambda visit: _show(visit, office))
    face.post("/countersign/{draft}/sign", lambda visit: _sign(visit, office))


def _read(visit: Visit) -> Response:
    try:
        saved = SavedRequest.parse(visit.form.one("saved").encode(), visit.texts("countersign.file"))
    except (InvalidProof, InvalidDeletion) as error:
        return visit.draw("countersign.html", 400, saved=None, fault=str(error))
    return see(f"/countersign/{visit.session.keep(saved)}")


def _show(visit: Visit, office: Office) -> Response:
    name = visit.request.path_params["draft"]
    saved = visit.session.drafts.get(name)
    if not isinstance(saved, SavedRequest):
        visit.session.say("plain", visit.texts("new.gone"))
        return see("/requests")
    keys = office.read_keys()
    holders = {key.key.key_id: key.name for key in keys.keys} if keys else {}
    return visit.draw(
        "countersign.html",
        saved=saved,
        name=name,
        fault="",
        signers=[(holders.get(key_id, ""), key_id[:16]) for key_id in saved.signers],
        needed=max(2, office.officers),
        word=_word(visit, saved),
        own=office.signing_key().public.key_id in saved.signers,
    )


def _word(visit: Visit, saved: SavedRequest) -> str:
    """Return what somebody types to confirm: the site's name where only one is asked."""
    return saved.terms.site or visit.texts("new.word")


def _sign(visit: Visit, office: Office) -> Response:
    name = visit.request.path_params["draft"]
    saved = visit.session.drafts.get(name)
    if not isinstance(saved, SavedRequest):
        visit.session.say("plain", visit.texts("new.gone"))
        return see("/requests")
    if visit.form.one("word") != _word(visit, saved):
        visit.session.say("bad", visit.texts("new.not-confirmed", word=_word(visit, saved)))
        return see(f"/countersign/{name}")
    signed = saved.countersign(office.signing_key())
    if visit.form.one("then") == "save":
        return attachment(saved_bytes(signed), f"request-{signed.request_id}.json", "application/json")
    if visit.session.drafts.pop(name, None) is None:
        return see("/requests")
    try:
        visit.service.submit(signed)
    except DeletionHeld as held:
        return see(f"/blocked/{visit.session.keep(held)}")
    except FedmunkeyError as error:
        visit.session.drafts[name] = saved
        visit.session.say("bad", str(error))
        return see(f"/countersign/{name}")
    visit.session.say("good", visit.texts("new.sent", count=1))
    return see(request_path(signed.request_id))
