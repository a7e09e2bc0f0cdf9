"""What a site answers to an order: one document, checked in one place, the same on the wire and in every store."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from fedmunkey.common.deletions.limits import LINE_CHARACTERS, is_line
from fedmunkey.common.deletions.states import SiteState
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss

_LARGEST_NUMBER = 2**63 - 1

_LOSS = {"epsilon": (float, int, NoneType), "delta": (float, int), "records": (int,)}
_ANSWER = {
    "order": (int,),
    "site": (str,),
    "requestId": (str,),
    "state": (str,),
    "records": (int,),
    "entries": (int,),
    "guarantee": (str,),
    "recordLoss": (dict, NoneType),
    "subjectLoss": (dict, NoneType),
    "reason": (str,),
    "seconds": (float, int),
}
_STATES = {state.value: state for state in SiteState}
_GUARANTEES = {guarantee.value: guarantee for guarantee in Guarantee}


@dataclass(frozen=True)
class Acknowledgement:
    """What a site answers once an order is carried out.

    Raises `InvalidDeletion` for what no site can answer, so that nobody can claim a bound that its guarantee has not.

    Attributes
    ----------
    number, site, request_id
        Which order.
    state : SiteState
        `ERASED`, `NOTHING_HELD` or `REFUSED`.
    records, entries : int
        Records that were erased, and bank entries among them (held-out records have none).
    guarantee : Guarantee
        What the deletion means for the shared weights.
    seconds : float
        From the beginning of the site's transaction to the moment when no file holds the erased bytes.
    reason : str
        Why an order was refused, or why a site that holds nothing cannot tell whether it did; empty otherwise.
    record_loss, subject_loss : PrivacyLoss, optional
        What the shared weights that left the site before the deletion may still tell of one erased record, and of all
        training records together that one subject of the erased records had at the site. Both are there where the
        guarantee is `CERTIFIED`, and only there.
    receipt : bytes
        The site's DSSE envelope (`common.proofs.receipts`); empty if it has no key. It repeats what the answer claims,
        and is no part of the document.
    """

    number: int
    site: str
    request_id: str
    state: SiteState
    records: int
    entries: int
    guarantee: Guarantee
    seconds: float
    reason: str = ""
    record_loss: PrivacyLoss | None = None
    subject_loss: PrivacyLoss | None = None
    receipt: bytes = field(default=b"", compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check that the answer is one that a site can give."""
        if fault := _fault(self):
            raise InvalidDeletion(f"the answer of site {self.site!r} to order {self.number} cannot be kept: {fault}")

    def claims(self) -> dict[str, Any]:
        """Return what a site signs, and may not answer differently a second time, JSON-ready; `seconds` is left out."""
        return {
            "order": self.number,
            "site": self.site,
            "requestId": self.request_id,
            "state": self.state.value,
            "records": self.records,
            "entries": self.entries,
            "guarantee": self.guarantee.value,
            "recordLoss": self.record_loss and self.record_loss.to_document(),
            "subjectLoss": self.subject_loss and self.subject_loss.to_document(),
            "reason": self.reason,
        }

    def to_document(self) -> dict[str, Any]:
        """Return all that the answer says, JSON-ready."""
        return {**self.claims(), "seconds": self.seconds}

    @classmethod
    def from_document(cls, document: Any, receipt: bytes = b"") -> Acknowledgement:
        """Read what `to_document` returns; raises `InvalidDeletion` if it is anything else."""
        _check_fields(document, _ANSWER, "an answer")
        state, guarantee = _STATES.get(document["state"]), _GUARANTEES.get(document["guarantee"])
        if state is None:
            raise InvalidDeletion(f"an answer has an unknown state ({document['state']!r})")
        if guarantee is None:
            raise InvalidDeletion(f"an answer has an unknown guarantee ({document['guarantee']!r})")
        return cls(
            number=document["order"],
            site=document["site"],
            request_id=document["requestId"],
            state=state,
            records=document["records"],
            entries=document["entries"],
            guarantee=guarantee,
            seconds=float(document["seconds"]),
            reason=document["reason"],
            record_loss=_read_loss(document["recordLoss"]),
            subject_loss=_read_loss(document["subjectLoss"]),
            receipt=receipt,
        )

    def to_json(self) -> str:
        """Return the document as text, the same for equal answers."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, receipt: bytes = b"") -> Acknowledgement:
        """Read what `to_json` returns; raises `InvalidDeletion` if it is anything else."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidDeletion("an answer is no JSON document") from None
        return cls.from_document(document, receipt)


def _fault(answer: Acknowledgement) -> str:
    """Return what is wrong with an answer; empty for nothing."""
    if not answer.state.answered:
        return f"its state is {answer.state.value!r}, which is no answer"
    if not 0 <= answer.entries <= answer.records <= _LARGEST_NUMBER:
        return f"{answer.entries} entries of {answer.records} records are not possible"
    if answer.state is not SiteState.ERASED and answer.records:
        return f"its state is {answer.state.value!r}, yet {answer.records} records were erased"
    if not (math.isfinite(answer.seconds) and answer.seconds >= 0):
        return f"it took {answer.seconds} seconds"
    if not is_line(answer.reason):
        return f"its reason is not one line of at most {LINE_CHARACTERS} printable characters"
    if not 1 <= answer.number <= _LARGEST_NUMBER:
        return "orders are numbered from 1"
    if not (is_line(answer.site) and is_line(answer.request_id)):
        return f"its site or its request id is not one line of at most {LINE_CHARACTERS} printable characters"
    return _loss_fault(answer)


def _loss_fault(answer: Acknowledgement) -> str:
    """Return what is wrong with what an answer says of what remains: it bounds it if, and only if, it is certified."""
    losses = [loss for loss in (answer.record_loss, answer.subject_loss) if loss is not None]
    certified = answer.guarantee is Guarantee.CERTIFIED
    if len(losses) != (2 if certified else 0):
        return (
            f"it is {answer.guarantee} and has {len(losses)} privacy losses; a certified answer has those of a record "
            "and of a subject, others have none"
        )
    for loss in losses:
        # Not a number is not at least 0 either.
        if not loss.epsilon >= 0 or not 0 <= loss.delta < 1 or not 1 <= loss.records <= _LARGEST_NUMBER:
            return (
                f"it has a privacy loss of epsilon = {loss.epsilon}, delta = {loss.delta} for {loss.records} records; "
                "epsilon is at least 0, delta from 0 to below 1, records at least 1"
            )
    if certified and losses[0].records != 1:
        return f"it gives the privacy loss of {losses[0].records} records as that of one"
    return ""


def _read_loss(document: Any) -> PrivacyLoss | None:
    if document is None:
        return None
    _check_fields(document, _LOSS, "a privacy loss")
    epsilon = document["epsilon"]
    return PrivacyLoss(math.inf if epsilon is None else float(epsilon), float(document["delta"]), document["records"])


def _check_fields(document: Any, kinds: dict[str, tuple[type, ...]], what: str) -> None:
    """Check that a document has exactly some fields, each of its kind; a truth value is no integer."""
    if type(document) is not dict or document.keys() != kinds.keys():
        raise InvalidDeletion(f"{what} does not have exactly the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(document[name]) not in kind:
            raise InvalidDeletion(f"the field {name} of {what} is of the wrong type")
