"""Asking from the console: a form, a preview of who is asked, a word typed by hand, and what the ledger then has."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from fedmunkey.client.console.drafts import MOST_TOGETHER, Draft, draw_up, of_targets, read_ids
from fedmunkey.client.console.notes import GROUNDS, MOST_CHARACTERS, Note
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.asking import sign_for, submit_parts
from fedmunkey.client.deletions.requester import split
from fedmunkey.client.deletions.saved_requests import saved_bytes
from fedmunkey.common.clock import utc_now
from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import address, attachment, request_path
from fedmunkey.common.console.texts import Texts
from fedmunkey.common.deletions.listing import SiteQuery
from fedmunkey.common.deletions.words import DeletionRequest
from fedmunkey.common.errors import DeletionHeld, FedmunkeyError, InvalidDeletion, InvalidInput


def add_asking(face: Face, office: Office) -> None:
    """Add the screens for new requests to a console."""
    face.get("/new", lambda visit: _show_form(visit, office))
    face.post("/new", lambda visit: _prepare(visit, office))
    face.post("/again", lambda visit: _prepare_again(visit, office))
    face.get("/drafts/{draft}", lambda visit: _show_draft(visit, office))
    face.post("/drafts/{draft}/send", lambda visit: _send(visit, office))
    face.post("/drafts/{draft}/save", lambda visit: _save(visit, office))
    face.post("/drafts/{draft}/cancel", _cancel)


def word_to_type(draft: Draft, texts: Texts) -> str:
    """Return what somebody types to confirm: the site's name where it is to forget everything."""
    return draft.whole_site or texts("new.word")


def _show_form(visit: Visit, office: Office, status: int = 200, **given: Any) -> Response:
    sites = visit.service.sites(SiteQuery(office.asker.name, brief=True)).sites
    kept = {"kind": "subject", "site": "", "ground": "", "reason": "", "fault": ""} | given
    return visit.draw(
        "new.html",
        status,
        sites=[site for site in sites if site.left_at is None],
        grounds=GROUNDS,
        most=MOST_CHARACTERS,
        office=office,
        **kept,
    )


def _prepare(visit: Visit, office: Office) -> Response:
    """Make references of what was typed; the ids are gone with this call, whatever comes of it."""
    form = visit.form
    kept = {name: form.one(name) for name in ("kind", "site", "ground", "reason")}
    try:
        note = Note(kept["ground"], kept["reason"], utc_now())
        ids = [] if kept["kind"] == "site" else read_ids(form.one("ids"), kept["kind"])
        draft = draw_up(office, visit.service, kept["kind"], ids, kept["site"], note)
    except (InvalidInput, InvalidDeletion) as error:
        return _show_form(visit, office, 400, **kept, fault=str(error))
    return see(f"/drafts/{visit.session.keep(draft)}")


def _prepare_again(visit: Visit, office: Office) -> Response:
    """Ask for the same as requests in the ledger did, as requests of their own."""
    names = visit.form.all("request")
    if not 0 < len(names) <= MOST_TOGETHER:
        raise InvalidInput(f"{len(names)} requests are selected; select 1 to {MOST_TOGETHER}")
    targets = [visit.service.get(name).request.target for name in names]
    if len({type(target) for target in targets}) > 1:
        raise InvalidInput("patients, records and whole sites are asked for one kind at a time; select one kind")
    known = [note for name in names if (note := office.notes.find(name)) is not None]
    note = Note(known[0].ground if known else "other", visit.texts("new.again-note"), utc_now())
    return see(f"/drafts/{visit.session.keep(of_targets(office, visit.service, targets, note))}")


def _show_draft(visit: Visit, office: Office) -> Response:
    name = visit.request.path_params["draft"]
    draft = visit.session.drafts.get(name)
    if not isinstance(draft, Draft):
        return _gone(visit)
    sites = [
        site for site in visit.service.sites(SiteQuery(office.asker.name, brief=True)).sites if site.left_at is None
    ]
    asked = [site for site in sites if not draft.site or site.site == draft.site]
    if not office.is_officer:
        asked = [site for site in sites if site.site == office.asker.name]
    texts = visit.texts
    return visit.draw(
        "draft.html",
        name=name,
        draft=draft,
        asked=asked,
        word=word_to_type(draft, texts),
        needed=office.officers_for(draft.kind),
        can_hand_on=office.is_officer and len(draft.requests) == 1,
        office=office,
    )


def _send(visit: Visit, office: Office) -> Response:
    """Sign and submit; a draft is taken out before anything is sent, so that nobody sends it twice."""
    name = visit.request.path_params["draft"]
    draft = visit.session.drafts.get(name)
    if not isinstance(draft, Draft):
        return _gone(visit)
    if not _is_confirmed(visit, draft):
        return see(f"/drafts/{name}")
    if office.officers_for(draft.kind) > 1:
        raise InvalidDeletion("this needs the signatures of several officers: sign it, and hand the file on")
    if visit.session.drafts.pop(name, None) is None:
        return _gone(visit)
    sent: list[DeletionRequest] = []
    try:
        office.notes.add((request.request_id for request in draft.requests), draft.note)
        for request in draft.requests:
            for _ in submit_parts(
                visit.service, request, lambda part: sign_for(visit.service, office.asker, part, office.days)
            ):
                pass
            sent.append(request)
    except DeletionHeld as held:
        if len(draft.requests) > len(sent) + 1:
            # The others are there to be sent, or not.
            visit.session.say("plain", visit.texts("blocked.others", count=len(draft.requests) - len(sent) - 1))
            visit.session.drafts[name] = draft.without(len(sent) + 1)
        return see(f"/blocked/{visit.session.keep(held)}")
    except FedmunkeyError as error:
        visit.session.say("bad", str(error))
        # Under the same ids: what did arrive is not asked for again.
        visit.session.drafts[name] = draft.without(len(sent))
        return see(f"/drafts/{name}")
    visit.session.say("good", visit.texts("new.sent", count=len(sent)))
    first = split(sent[0])
    # What was asked for in parts is found by how the ids of all of them begin.
    alone = request_path(first[0].request_id) if len(first) == 1 else address("/requests", id=sent[0].request_id)
    return see(alone if len(sent) == 1 else "/requests")


def _save(visit: Visit, office: Office) -> Response:
    """Sign, and give the file to hand on to the other officer; nobody is asked yet."""
    office.check_may_hand_on()
    name = visit.request.path_params["draft"]
    draft = visit.session.drafts.get(name)
    if not isinstance(draft, Draft):
        return _gone(visit)
    if not _is_confirmed(visit, draft):
        return see(f"/drafts/{name}")
    if len(draft.requests) > 1:
        raise InvalidDeletion("each patient's request is signed and handed on by itself; name one at a time")
    (request,) = draft.requests
    data = saved_bytes(office.asker.sign(request, utc_now(), office.days))
    office.notes.add([request.request_id], draft.note)
    return attachment(data, f"request-{request.request_id}.json", "application/json")


def _cancel(visit: Visit) -> Response:
    visit.session.drafts.pop(visit.request.path_params["draft"], None)
    visit.session.say("plain", visit.texts("new.cancelled"))
    return see("/requests")


def _is_confirmed(visit: Visit, draft: Draft) -> bool:
    texts = visit.texts
    typed, word = visit.form.one("word"), word_to_type(draft, texts)
    if typed == word:
        return True
    visit.session.say("bad", texts("new.not-confirmed", word=word))
    return False


def _gone(visit: Visit) -> Response:
    visit.session.say("plain", visit.texts("new.gone"))
    return see(address("/requests"))
