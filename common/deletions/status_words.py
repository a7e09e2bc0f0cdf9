"""A request's status and a site's answer in words for people, and as the JSON that `--json` prints."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from fedmunkey.common.deletions.words import (
    Acknowledgement,
    Outcome,
    Records,
    RequestStatus,
    SiteProgress,
    SiteState,
    Subject,
)
from fedmunkey.common.errors import count_of
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss


class TableRows(NamedTuple):
    """A table for people: columns of words, then columns of numbers, and the rows."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    rows: list[tuple[str, ...]]


_PRINTED = {"requestId": "request_id", "recordLoss": "record_loss", "subjectLoss": "subject_loss"}


_SAID = ("records", "entries", "guarantee", "record_loss", "subject_loss", "seconds")


def weakest_guarantee(status: RequestStatus) -> Guarantee | None:
    """Return the guarantee that a request may claim as a whole, the weakest of its sites'.

    None unless something was erased and every addressed site has answered without refusing: before, nobody can say what
    remains.
    """
    if status.outcome is not Outcome.ERASED:
        return None
    given = [progress.acknowledgement.guarantee for progress in status.sites if progress.acknowledgement]
    return Guarantee.weakest(given) if given else None


def erased_words(records: int) -> str:
    """Return how much was erased, for people; that nothing was is not to be overlooked."""
    return f"{count_of(records, 'record')} erased" if records else "NOTHING ERASED"


def outcome_words(status: RequestStatus) -> str:
    """Return what an outcome means and how to go on, for people; empty where everything went as it was asked."""
    target, sites = status.request.target, status.sites
    awaited = dict.fromkeys(part.site for part in sites if not part.state.final)
    closed = {SiteState.REFUSED, SiteState.LEFT}
    unsure = dict.fromkeys(part.site for part in sites if part.state is SiteState.NOTHING_HELD and part.reason)
    without = dict.fromkeys(f"{part.site} ({part.state})" for part in sites if part.state in closed)
    said = {
        Outcome.NOTHING_HELD: "no site that was asked holds what was named; compare each id, letter by letter, with "
        "the one it was enrolled under. What was erased before is not held either"
        + f". Whether an earlier key store held it, {', '.join(unsure)} cannot tell"
        * bool(unsure),
        Outcome.REFUSED: "every site that was asked refused, and holds what it held; put right what stands beside it, "
        "and ask again as another request",
        Outcome.PARTIAL: f"erased nothing: {', '.join(without)}",
        Outcome.PENDING: f"pending at {', '.join(awaited)}: the request stays in the ledger until all have answered",
    }
    if status.outcome is Outcome.ERASED and isinstance(target, Records) and status.erased < len(target.references):
        return f"NOT ALL: of the {len(target.references)} records that were named, no site holds the others"
    return said.get(status.outcome, "")


def renewal_words(status: RequestStatus) -> str:
    """Return, for people, that the shared weights still hold what was erased, and until when; empty if they do not."""
    if not status.renewal_owed or status.renew_by is None:
        return ""
    return (
        f"its entries are gone; the shared weights still hold what they contributed, and are renewed by "
        f"{status.renew_by:%Y-%m-%d %H:%M} UTC"
    )


def progress_rows(status: RequestStatus, *, times: bool = False) -> TableRows:
    """Return what became of a request at each site, for a table; with `times` also when each site answered."""
    rows = []
    for progress in status.sites:
        answer, at = progress.acknowledgement, progress.acknowledged_at
        row = [progress.site, progress.state.value, answer.guarantee.value if answer else ""]
        row.append(epsilon_words(answer) if answer else "")
        if times:
            row.append(f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "")
        row += [progress.reason, str(progress.number)]
        row += (str(answer.records), str(answer.entries), f"{answer.seconds:.3f}") if answer else ()
        rows.append(tuple(row))
    words = ("site", "state", "guarantee", "epsilon", *(("answered",) if times else ()), "reason")
    return TableRows(words, ("order", "records", "entries", "seconds"), rows)


def combined_loss(status: RequestStatus) -> PrivacyLoss | None:
    """Return what the shared weights may tell of a subject whom several sites have forgotten.

    Epsilons and deltas of the sites that erased records add up (basic composition, Dwork and Roth 2014, theorem 3.16);
    a site with the `EXACT` guarantee adds nothing. Returned is None if the request as a whole is not `CERTIFIED`, or no
    such site has erased anything.
    """
    if weakest_guarantee(status) is not Guarantee.CERTIFIED:
        return None
    answers = [progress.acknowledgement for progress in status.sites if progress.acknowledgement]
    losses = [answer.subject_loss for answer in answers if answer.state is SiteState.ERASED and answer.subject_loss]
    if not losses:
        return None
    return PrivacyLoss(
        sum(loss.epsilon for loss in losses), sum(loss.delta for loss in losses), sum(loss.records for loss in losses)
    )


def epsilon_words(answer: Acknowledgement) -> str:
    """Return what a site's answer bounds, for people: epsilon of a record, and of its subject where that is more."""
    if answer.record_loss is None or answer.subject_loss is None:
        return ""
    record = f"{_epsilon(answer.record_loss)} a record"
    return record if answer.subject_loss.records == 1 else f"{record}, {loss_words(answer.subject_loss)}"


def loss_words(loss: PrivacyLoss | None) -> str:
    """Return epsilon and the number of records that it is for, for people; nothing for None."""
    return "" if loss is None else f"{_epsilon(loss)} for {count_of(loss.records, 'record')}"


def loss_document(loss: PrivacyLoss | None) -> dict[str, float | int | None] | None:
    """Return a privacy loss as the JSON that `--json` prints."""
    return None if loss is None else loss.to_document()


def answer_document(answer: Acknowledgement) -> dict[str, Any]:
    """Return an answer as the JSON that `--json` prints."""
    return {_PRINTED.get(name, name): value for name, value in answer.to_document().items()}


def status_document(status: RequestStatus) -> dict[str, Any]:
    """Return a request's status as the JSON that `--json` prints; times are ISO 8601 in UTC, references hexadecimal."""
    guarantee = weakest_guarantee(status)
    return {
        "request_id": status.request.request_id,
        "requester": status.request.requester,
        "target": _target_document(status),
        "state": status.state.value,
        "outcome": status.outcome.word,
        "submitted_at": status.submitted_at.isoformat(),
        "due_at": status.due_at.isoformat() if status.due_at else None,
        "extension": status.extension,
        "renew_by": status.renew_by.isoformat() if status.renew_by else None,
        "records": status.erased,
        "seconds": status.seconds,
        "guarantee": guarantee.value if guarantee else None,
        "subject_loss": loss_document(combined_loss(status)),
        "sites": [_progress_document(progress) for progress in status.sites],
    }


def _target_document(status: RequestStatus) -> dict[str, Any]:
    target = status.request.target
    if isinstance(target, Records):
        references = sorted(reference.hex() for reference in target.references)
        return {"kind": "records", "site": target.site, "references": references}
    if isinstance(target, Subject):
        return {"kind": "subject", "reference": target.reference.hex()}
    return {"kind": "site", "site": target.site}


def _progress_document(progress: SiteProgress) -> dict[str, Any]:
    answer = progress.acknowledgement
    document = {} if answer is None else answer_document(answer)
    return {
        "site": progress.site,
        "order": progress.number,
        "state": progress.state.value,
        **{name: document.get(name) for name in _SAID},
        "reason": progress.reason or (answer.reason if answer else ""),
        "acknowledged_at": progress.acknowledged_at.isoformat() if progress.acknowledged_at else None,
    }


def _epsilon(loss: PrivacyLoss) -> str:
    """Return epsilon with two decimals, rounded up: a bound must not look smaller than it is."""
    if math.isinf(loss.epsilon):
        return "unbounded"
    return str(Decimal(str(loss.epsilon)).quantize(Decimal("0.01"), ROUND_CEILING))
