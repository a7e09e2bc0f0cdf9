"""Models: runs and their curves, releases and what they descend from, audits, and what sites gave away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Response

from fedmunkey.common.console.face import Face, Visit
from fedmunkey.common.console.pages import request_path
from fedmunkey.common.console.paging import PAGE_SIZE, Paging, page_number
from fedmunkey.common.errors import UnknownDeletion
from fedmunkey.server.console.desk import Desk
from fedmunkey.server.console.kept_runs import AuditLine, KeptAudits, KeptRuns, RunLine
from fedmunkey.server.console.named_models import NamedModels
from fedmunkey.server.rounds.run_document import run_document
from fedmunkey.server.rounds.run_record import CURVES
from fedmunkey.server.rounds.runs import run_in_use

_ROWS = 10
"""Of each list on the overview of models."""

_Row = TypeVar("_Row")


class Models:
    """What the screens read; made once for a console."""

    def __init__(self, desk: Desk) -> None:
        self.ledger = desk.ledger
        self.runs = KeptRuns(desk.runs)
        self.audits = KeptAudits(desk.audits)
        self.named = NamedModels(desk.ledger, desk.sources.ended)
        self.audits_folder = desk.audits

    def run(self, name: str) -> tuple[RunLine, dict[str, Any]]:
        """Return a run and what is said of it; raises `UnknownDeletion` if there is none of that name."""
        lines = self.runs.read()
        found = next((line for line in lines if line.run.name == name), None)
        if found is None:
            raise UnknownDeletion(f"there is no run {name}; munkey-server runs lists them")
        return found, self._document(found, lines)

    def documents(self, shown: Sequence[RunLine], lines: Sequence[RunLine]) -> list[dict[str, Any]]:
        """Return what is said of some of all runs."""
        return [self._document(line, lines, most=1) for line in shown]

    def audit(self, name: str) -> AuditLine:
        """Return a report; raises `UnknownDeletion` if there is none of that name."""
        found = next((line for line in self.audits.read() if line.name == name), None)
        if found is None:
            raise UnknownDeletion(f"there is no report {name} in {self.audits_folder}")
        return found

    def _document(self, line: RunLine, lines: Sequence[RunLine], **most: int) -> dict[str, Any]:
        used = run_in_use([each.run for each in lines])
        document = run_document(line.run, used, lambda digest: self.ledger.some_erased_since(digest, **most))
        return document | {"rounds": len(line.rounds)}


def add_models(face: Face, desk: Desk) -> None:
    """Add them to the operator's console."""
    models = Models(desk)
    face.get("/models", lambda visit: _show(visit, models))
    face.get("/models/runs/{name}", lambda visit: _show_run(visit, models))
    face.get("/models/runs/{name}/curves.svg", lambda visit: _show_curves(visit, models))
    face.get("/models/releases/{number}", lambda visit: _show_release(visit, models))
    face.get("/models/audits/{name}", lambda visit: _show_audit(visit, models))


def _show(visit: Visit, models: Models) -> Response:
    lines = list(reversed(models.runs.read()))
    audits, named = models.audits.read(), models.named.read()
    runs, shown_runs = _part(visit, "runs", lines)
    reports, shown_audits = _part(visit, "audits", audits)
    away, shown_models = _part(visit, "named", named.models)
    page = page_number(visit.request.query_params.get("releases", ""))
    found, total = models.ledger.releases(page, _ROWS)
    releases = _paging(visit, "releases", total)
    if releases.page != page:
        found, _ = models.ledger.releases(releases.page, _ROWS)
    return visit.draw(
        "models.html",
        runs=models.documents(shown_runs, lines[::-1]),
        last=total,
        releases=found,
        audits=shown_audits,
        named=shown_models,
        complete=named.complete,
        paging={"runs": runs, "releases": releases, "audits": reports, "named": away},
        audits_folder=models.audits_folder,
        request_path=request_path,
    )


def _part(visit: Visit, name: str, rows: Sequence[_Row]) -> tuple[Paging, Sequence[_Row]]:
    paging = _paging(visit, name, len(rows))
    return paging, paging.cut(rows)


def _paging(visit: Visit, name: str, total: int) -> Paging:
    given = visit.request.query_params
    others = {other: given[other] for other in ("runs", "releases", "audits", "named") if other in given}
    others.pop(name, None)
    return Paging(page_number(given.get(name, "")), _ROWS, total, "/models", others, name)


def _show_run(visit: Visit, models: Models) -> Response:
    line, document = models.run(visit.request.path_params["name"])
    given = page_number(visit.request.query_params.get("page", ""))
    paging = Paging(given, PAGE_SIZE, len(line.rounds), visit.request.url.path, {})
    return visit.draw(
        "run.html",
        run=document,
        rounds=paging.cut(line.rounds[::-1]),
        paging=paging,
        has_curves=(line.run.folder / CURVES).is_file(),
        request_path=request_path,
    )


def _show_curves(visit: Visit, models: Models) -> Response:
    line, _ = models.run(visit.request.path_params["name"])
    try:
        drawn = (line.run.folder / CURVES).read_bytes()
    except OSError:
        raise UnknownDeletion(f"{line.run.name} has drawn no curves") from None
    return Response(drawn, media_type="image/svg+xml")


def _show_release(visit: Visit, models: Models) -> Response:
    number = visit.request.path_params["number"]
    release = models.ledger.release(page_number(number)) if number.isdigit() else None
    if release is None:
        raise UnknownDeletion(f"there is no release {number}")
    parts = models.ledger.parts(release.number)
    given = page_number(visit.request.query_params.get("page", ""))
    paging = Paging(given, PAGE_SIZE, len(parts), visit.request.url.path, {})
    return visit.draw(
        "release.html",
        release=release,
        parts=paging.cut(parts),
        paging=paging,
        erased=models.ledger.erasing(release.number),
        request_path=request_path,
    )


def _show_audit(visit: Visit, models: Models) -> Response:
    return visit.draw("audit.html", audit=models.audit(visit.request.path_params["name"]))
