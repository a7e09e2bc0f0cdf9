"""What is about to be asked: prepared, shown, confirmed by hand, and sent once."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedmunkey.client.console.notes import Note
from fedmunkey.client.console.office import Office
from fedmunkey.client.deletions.asking import Wanted
from fedmunkey.common.deletions.listing import MOST_REFERENCES_FOUND, RequestQuery, RequestSummary
from fedmunkey.common.deletions.words import DeletionRequest, Records, Subject, Target, WholeSite
from fedmunkey.common.errors import InvalidInput
from fedmunkey.common.service.console_service import ConsoleService
from fedmunkey.common.service.wire import MAXIMUM_REFERENCES

MOST_TOGETHER = 500
"""Requests that are confirmed at once."""

_MOST_EARLIER = 10
_ID_COLUMNS = {
    "subject": ("subject_id", "subject", "patient_id", "patient"),
    "records": ("record_id", "record", "image_id", "image"),
}


@dataclass(frozen=True)
class Draft:
    """Requests that were prepared, without any id of a patient or record.

    `earlier` are requests in the ledger for some of the same, the first of `before` of them.
    """

    requests: tuple[DeletionRequest, ...] = field(repr=False)
    note: Note
    earlier: tuple[RequestSummary, ...] = ()
    before: int = 0

    @property
    def whole_site(self) -> str:
        """The site of which everything is to be forgotten, empty if none."""
        targets = [request.target for request in self.requests]
        return next((target.site for target in targets if isinstance(target, WholeSite)), "")

    @property
    def site(self) -> str:
        """The only site that is asked, empty for all."""
        target = self.requests[0].target
        return "" if isinstance(target, Subject) else target.site

    @property
    def kind(self) -> str:
        """What its requests name."""
        target = self.requests[0].target
        return "subject" if isinstance(target, Subject) else "records" if isinstance(target, Records) else "site"

    @property
    def named(self) -> int:
        """How many patients, records or sites it names."""
        return sum(
            len(request.target.references) if isinstance(request.target, Records) else 1 for request in self.requests
        )

    def without(self, sent: int) -> Draft:
        """Return what is left once the first requests were sent."""
        return replace(self, requests=self.requests[sent:])


def draw_up(
    office: Office, service: ConsoleService, kind: str, ids: Sequence[str], site: str | None, note: Note
) -> Draft:
    """Make references of ids and return what is to be asked: a request for each subject, or one for all records.

    Raises `InvalidDeletion` or `InvalidInput` with what to put right; no message holds an id.
    """
    if kind == "subject":
        if not ids:
            raise InvalidInput("name a patient: type the id, one a line for several")
        if len(ids) > MOST_TOGETHER:
            raise InvalidInput(f"{len(ids)} patients are more than {MOST_TOGETHER} at once; ask in several turns")
        targets = [office.target(Wanted(subject=one), None) for one in ids]
    elif kind == "records":
        if not ids:
            raise InvalidInput("name records: type their ids, one a line")
        if len(ids) > MOST_TOGETHER * MAXIMUM_REFERENCES:
            raise InvalidInput(f"{len(ids)} records are too many at once; ask in several turns")
        targets = [office.target(Wanted(records=tuple(ids)), site or None)]
    elif kind == "site":
        if office.is_officer and not site:
            raise InvalidInput("choose the site that is to forget everything")
        targets = [office.target(Wanted(), site or "")]
    else:
        raise InvalidInput("say what is to be forgotten: patients, records or a whole site")
    return of_targets(office, service, targets, note)


def of_targets(office: Office, service: ConsoleService, targets: Sequence[Target], note: Note) -> Draft:
    """Return requests for targets, under ids of their own, with what was asked for the same before."""
    # An id is chosen here, once: sending a draft twice is asking for the same once.
    requests = tuple(DeletionRequest(str(uuid.uuid4()), office.asker.name, target) for target in targets)
    earlier: dict[str, RequestSummary] = {}
    before = 0
    references = [(number, reference) for number, target in enumerate(targets) for reference in _references(target)]
    for first in range(0, min(len(references), MOST_TOGETHER), MOST_REFERENCES_FOUND):
        part = references[first : first + MOST_REFERENCES_FOUND]
        query = RequestQuery(
            office.asker.name, references=tuple(reference for _, reference in part), size=_MOST_EARLIER
        )
        found = service.find(query)
        before += found.total
        earlier |= {summary.request_id: summary for summary in found.requests}
    return Draft(requests, note, tuple(list(earlier.values())[:_MOST_EARLIER]), before)


def read_ids(text: str, kind: str) -> list[str]:
    """Return the ids that somebody typed or a CSV file has, one a line, without doubles.

    A first line that names columns says which of them holds ids; of several columns without one, nobody can tell.
    Raises `InvalidInput`, which holds no id.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = next((mark for mark in (";", "\t", ",") if mark in lines[0]), None)
    # Spreadsheets put quotes around ids as well.
    rows = [[line.strip().strip('"')] for line in lines]
    if delimiter is not None:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    names = [cell.lower() for cell in rows[0]]
    place = next((names.index(name) for name in _ID_COLUMNS.get(kind, ()) if name in names), None)
    if place is None and delimiter is not None:
        raise InvalidInput(
            f"which column holds the ids? name it {_ID_COLUMNS[kind][0]} in the first line; write ids that hold a "
            "comma or semicolon in quotes below that"
        )
    found = rows if place is None else rows[1:]
    if any(len(row) <= (place or 0) for row in found):
        raise InvalidInput("a line has fewer columns than the first; correct the file")
    return list(dict.fromkeys(row[place or 0] for row in found if row[place or 0]))


def _references(target: Target) -> list[bytes]:
    if isinstance(target, Records):
        return sorted(target.references)
    return [target.reference] if isinstance(target, Subject) else []
