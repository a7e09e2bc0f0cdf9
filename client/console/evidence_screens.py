"""Evidence in the console: a request's certificate, checked while one looks, and as files; those of many together."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from fastapi import Response

from fedmunkey.client.console.asking import attachment
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.evidence import Evidence, fetch_evidence
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.deletions.listing import MOST_LISTED, RequestQuery
from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.deletions.status_words import outcome_words
from fedmunkey.common.deletions.words import Outcome
from fedmunkey.common.errors import InvalidDeletion, InvalidInput, InvalidProof
from fedmunkey.common.proofs import certificate_words

MOST_BUNDLED = 1000
"""Certificates in one bundle."""

_ENDED = tuple(state for state in RequestState if state.answered)


def add_evidence(face: Face, office: Office) -> None:
    """Add the screens of certificates to a console."""
    face.get("/evidence", lambda visit: visit.draw("bundle.html"))
    face.post("/evidence", lambda visit: _bundle(visit, office))
    face.get("/evidence/{request_id:path}", lambda visit: _show(visit, office))
    face.post("/certificate", lambda visit: _download(visit, office))


def _show(visit: Visit, office: Office) -> Response:
    name = visit.request.path_params["request_id"]
    status = visit.service.get(name)
    if status.outcome is Outcome.PENDING:
        waits = outcome_words(status)
        return visit.draw("evidence.html", name=name, about=None, asked="", waits=waits, fault="")
    try:
        evidence = fetch_evidence(visit.service, name, office.read_keys())
    except InvalidProof as error:
        return visit.draw("evidence.html", 400, name=name, about=None, asked="", waits="", fault=str(error))
    verified, keys = evidence.verified, evidence.keys
    if verified is None or keys is None:
        return visit.draw("evidence.html", name=name, about=None, asked="", waits="", fault="")
    about = certificate_words.document(verified, keys)
    asked = certificate_words.asked_for(verified)
    return visit.draw("evidence.html", name=name, about=about, asked=asked, waits="", fault="")


def _download(visit: Visit, office: Office) -> Response:
    name = visit.form.one("request")
    evidence = fetch_evidence(visit.service, name, office.read_keys())
    if visit.form.one("as") == "html":
        return attachment(evidence.page().encode(), f"certificate-{name}.html", "text/html")
    return attachment(evidence.data, f"certificate-{name}.json", "application/json")


def _bundle(visit: Visit, office: Office) -> Response:
    """Give the certificates of selected requests, or of all that ended and were asked for within a period."""
    names = visit.form.all("request") or list(_asked_within(visit))
    if not names:
        raise InvalidInput("no request of that period has ended; choose another one")
    if len(names) > MOST_BUNDLED:
        raise InvalidInput(f"{len(names)} certificates are more than {MOST_BUNDLED}; choose a shorter period")
    packed, index = io.BytesIO(), io.StringIO()
    table = csv.writer(index)
    table.writerow(["request", "file", "checked", "what it says"])
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for number, name in enumerate(names, 1):
            table.writerow(_pack(visit, office, name, f"{number:04d}", bundle))
        bundle.writestr("index.csv", index.getvalue())
    return attachment(packed.getvalue(), f"evidence-{visit.face.clock():%Y-%m-%d}.zip", "application/zip")


def _pack(visit: Visit, office: Office, name: str, number: str, bundle: zipfile.ZipFile) -> tuple[str, str, str, str]:
    try:
        evidence: Evidence = fetch_evidence(visit.service, name, office.read_keys())
    except (InvalidDeletion, InvalidProof) as error:
        return name, "", "no", str(error)
    bundle.writestr(f"{number}.json", evidence.data)
    if evidence.verified is None:
        return name, f"{number}.json", "no", ""
    bundle.writestr(f"{number}.html", evidence.page())
    return name, f"{number}.json", "yes", certificate_words.headline(evidence.verified)


def _asked_within(visit: Visit) -> Iterator[str]:
    try:
        first, last = (
            datetime.strptime(visit.form.one(name), "%Y-%m-%d").replace(tzinfo=UTC) for name in ("from", "to")
        )
    except ValueError:
        raise InvalidInput("give the first and the last day, each as 2026-12-31") from None
    page, left = 1, True
    while left:
        query = RequestQuery(visit.face.reader, _ENDED, page=page, size=MOST_LISTED)
        found = visit.service.find(query).requests
        yield from (one.request_id for one in found if first <= one.submitted_at < last + timedelta(days=1))
        page, left = page + 1, len(found) == MOST_LISTED
