"""Evidence in the console: a request's certificate, checked while one looks, and as files; those of many together."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Response

from fedmunkey.common.console.evidence_kept import Checked, EvidenceKept
from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.pages import attachment
from fedmunkey.common.console.paging import PAGE_SIZE, Paging, page_number
from fedmunkey.common.deletions.listing import MOST_LISTED, RequestQuery
from fedmunkey.common.deletions.states import RequestState
from fedmunkey.common.deletions.status_words import outcome_words
from fedmunkey.common.deletions.words import Outcome
from fedmunkey.common.errors import InvalidDeletion, InvalidInput, InvalidProof
from fedmunkey.common.proofs import certificate_words
from fedmunkey.common.proofs.trusted_keys import TrustedKeys
from fedmunkey.common.service.evidence import Evidence, fetch_evidence

MOST_BUNDLED = 1000
"""Certificates in one bundle."""

_SENTENCES = 25
_ENDED = tuple(state for state in RequestState if state.answered)


Keys = Callable[[], TrustedKeys | None]
"""Returns the trusted keys as they are now, None where none were named."""


def add_evidence(face: Face, keys: Keys, program: str) -> None:
    """Add the screens of certificates to a console, which is started with `program` and an option for trusted keys."""
    face.get("/evidence", lambda visit: visit.draw("bundle.html"))
    face.post("/evidence", lambda visit: _bundle(visit, keys))
    kept = EvidenceKept()
    face.get("/evidence/{request_id:path}", lambda visit: _show(visit, keys, program, kept))
    face.post("/certificate", lambda visit: _download(visit, keys))


def _show(visit: Visit, keys: Keys, program: str, kept: EvidenceKept) -> Response:
    name = visit.request.path_params["request_id"]
    known: dict[str, Any] = {"name": name, "about": None, "waits": "", "fault": "", "program": program}
    # Whether somebody may see it is asked anew, whatever is kept.
    status = visit.service.get(name)
    if status.outcome is Outcome.PENDING:
        return visit.draw("evidence.html", **known | {"waits": outcome_words(status)})
    checked = kept.find(visit.session.viewer.who, name)
    if checked is None:
        try:
            evidence = fetch_evidence(visit.service, name, keys())
        except InvalidProof as error:
            return visit.draw("evidence.html", 400, **known | {"fault": str(error)})
        if evidence.verified is None or evidence.keys is None:
            return visit.draw("evidence.html", **known)
        checked = Checked(certificate_words.document(evidence.verified, evidence.keys), visit.face.clock())
        kept.keep(visit.session.viewer.who, name, checked)
    return visit.draw("evidence.html", **known | {"about": checked.about, "at": checked.at} | _pages(visit, checked))


def _pages(visit: Visit, checked: Checked) -> dict[str, Any]:
    """Return the parts of a certificate's long lists that the address asks for."""
    given, path, about = visit.request.query_params, visit.request.url.path, checked.about
    page, proved = page_number(given.get("page", "")), page_number(given.get("proved", ""))
    sites = Paging(page, PAGE_SIZE, len(about["sites"]), path, {"proved": proved if proved > 1 else ""})
    lines = Paging(proved, _SENTENCES, len(about["proved"]), path, {"page": page if page > 1 else ""}, "proved")
    return {
        "sites": sites.cut(about["sites"]),
        "paging": sites,
        "proved": lines.cut(about["proved"]),
        "proved_paging": lines,
    }


def _download(visit: Visit, keys: Keys) -> Response:
    name = visit.form.one("request")
    if visit.form.one("as") == "pdf":
        visit.take_pains()
    evidence = fetch_evidence(visit.service, name, keys())
    if visit.form.one("as") == "pdf":
        return attachment(evidence.pdf(), f"certificate-{name}.pdf", "application/pdf")
    if visit.form.one("as") == "html":
        return attachment(evidence.page().encode(), f"certificate-{name}.html", "text/html")
    return attachment(evidence.data, f"certificate-{name}.json", "application/json")


def _bundle(visit: Visit, keys: Keys) -> Response:
    """Give the certificates of selected requests, or of all that ended and were asked for within a period."""
    visit.take_pains()
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
            table.writerow(_pack(visit, keys, name, f"{number:04d}", bundle))
        bundle.writestr("index.csv", index.getvalue())
    return attachment(packed.getvalue(), f"evidence-{visit.face.clock():%Y-%m-%d}.zip", "application/zip")


def _pack(visit: Visit, keys: Keys, name: str, number: str, bundle: zipfile.ZipFile) -> tuple[str, str, str, str]:
    try:
        evidence: Evidence = fetch_evidence(visit.service, name, keys())
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
        query = RequestQuery(visit.reader, _ENDED, page=page, size=MOST_LISTED)
        found = visit.service.find(query).requests
        yield from (one.request_id for one in found if first <= one.submitted_at < last + timedelta(days=1))
        page, left = page + 1, len(found) == MOST_LISTED
