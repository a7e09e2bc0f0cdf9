"""Legal holds and the opt-out list in the console: what is in force, giving and ending one, and receipts of blocks."""

from __future__ import annotations

import uuid

from fastapi import Response

from fedmunkey.client.console.drafts import read_ids
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.instructing import end, entered_requests, give, read_standing
from fedmunkey.common.console.face import Face, Visit, see
from fedmunkey.common.console.pages import attachment
from fedmunkey.common.deletions.words import Records, Subject
from fedmunkey.common.errors import DeletionHeld, FedmunkeyError, InvalidDeletion, InvalidInput
from fedmunkey.common.proofs.governance.instructions import InstructionKind

_ABOUT = ("subject", "records")


def add_instructing(face: Face, office: Office) -> None:
    """Add it to an officer's console."""
    face.get("/standing", lambda visit: _show(visit, office))
    face.post("/standing", lambda visit: _give(visit, office))
    face.post("/standing/{digest}/end", lambda visit: _end(visit, office))


def add_blocks(face: Face) -> None:
    """Add the page that a request ends on which a legal hold has kept out."""
    face.get("/blocked/{draft}", lambda visit: _show_block(visit))
    face.post("/blocked/{draft}/receipt", lambda visit: _hand_out(visit))


def _show(visit: Visit, office: Office, status: int = 200, *, fault: str = "", **given: str) -> Response:
    standing, keys = read_standing(visit.service), office.read_keys()
    holders = {key.key.key_id: key.name for key in keys.keys} if keys else {}
    rows = [
        {
            "kind": one.kind.value,
            "name": one.instruction_id,
            "digest": one.digest.hex(),
            "about": "subject" if isinstance(one.target, Subject) else "records",
            "count": len(one.references),
            "issued": one.issued,
            "signers": [holders.get(each.key_id) or each.key_id[:16] for each in one.envelope.signatures],
            "in_force": one.digest not in standing.ended,
        }
        for one in standing.known.values()
        if one.kind is not InstructionKind.END
    ]
    rows.sort(key=lambda row: (not row["in_force"], row["issued"]))
    kept = {"kind": InstructionKind.HOLD.value, "about": "subject", "name": ""} | given
    return visit.draw(
        "standing.html", status, rows=rows, fault=fault, word=visit.texts("standing.word"), abouts=_ABOUT, **kept
    )


def _give(visit: Visit, office: Office) -> Response:
    """Make references of what was typed, sign and give the instruction; the ids are gone with this call."""
    form = visit.form
    kept = {name: form.one(name) for name in ("kind", "about", "name")}
    try:
        if kept["kind"] not in (InstructionKind.HOLD, InstructionKind.OPT_OUT) or kept["about"] not in _ABOUT:
            raise InvalidInput("say what is to be kept or left out: patients or records")
        if form.one("word") != visit.texts("standing.word"):
            raise InvalidInput(visit.texts("standing.not-confirmed", word=visit.texts("standing.word")))
        abouts = _named(office, kept["about"], read_ids(form.one("ids"), kept["about"]))
        kind, secret = InstructionKind(kept["kind"]), office.asker.secret
        if secret is None:
            raise InvalidDeletion("ids become references with the federation secret; name its file with --secret")
        for number, about in enumerate(abouts, 1):
            # Of several patients, each has an instruction of its own.
            name = f"{kept['name']}.{number}" if kept["name"] and len(abouts) > 1 else kept["name"]
            give(visit.service, kind, name or str(uuid.uuid4()), about, office.signing_key(), secret.federation_id)
            for one in entered_requests(visit.service, about) if kind is InstructionKind.HOLD else ():
                visit.session.say("warn", visit.texts("standing.too-late", request=one.request_id))
    except FedmunkeyError as error:
        return _show(visit, office, 400, fault=str(error), **kept)
    visit.session.say("good", visit.texts(f"standing.given-{kind}", count=len(abouts)))
    return see("/standing")


def _named(office: Office, about: str, ids: list[str]) -> list[Records | Subject]:
    if not ids or office.asker.secret is None:
        raise InvalidInput("type ids, one a line")
    references = [office.asker.secret.reference(one) for one in ids]
    return [Records(frozenset(references))] if about == "records" else [Subject(one) for one in references]


def _end(visit: Visit, office: Office) -> Response:
    digest, word = visit.request.path_params["digest"], visit.texts("standing.word-end")
    if visit.form.one("word") != word:
        visit.session.say("bad", visit.texts("standing.not-confirmed", word=word))
        return see("/standing")
    try:
        kind = InstructionKind(visit.form.one("kind"))
        over = end(visit.service, kind, digest, office.signing_key())
    except ValueError:
        raise InvalidInput("say what is to end: a hold or an opt-out") from None
    except FedmunkeyError as error:
        visit.session.say("bad", str(error))
    else:
        visit.session.say("good", visit.texts(f"standing.ended-{kind}", name=over.instruction_id))
    return see("/standing")


def _show_block(visit: Visit) -> Response:
    name = visit.request.path_params["draft"]
    held = visit.session.drafts.get(name)
    if not isinstance(held, DeletionHeld):
        visit.session.say("plain", visit.texts("new.gone"))
        return see("/requests")
    return visit.draw("blocked.html", name=name, names=held.names, said=str(held), receipt=bool(held.receipt))


def _hand_out(visit: Visit) -> Response:
    held = visit.session.drafts.get(visit.request.path_params["draft"])
    if not isinstance(held, DeletionHeld) or not held.receipt:
        visit.session.say("plain", visit.texts("new.gone"))
        return see("/requests")
    return attachment(held.receipt, f"blocked-{held.holds[0].hex()[:16]}.json", "application/json")
