"""Receipts: what a site signs once it has answered an order. They hold no identity and no reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.deletion import Acknowledgement, SiteState
from common.errors import InvalidProof
from common.guarantees import Guarantee, PrivacyLoss
from common.signing.canonical import read_hex, take
from common.signing.dsse import Envelope
from common.signing.keys import SigningKey
from common.signing.statements import Statement, read_time, write_time

PREDICATE_TYPE = "urn:fedmunkey:deletion-receipt:v1"


@dataclass(frozen=True)
class WitnessedHead:
    """The last head of the coordinator's log that a site had checked when it signed."""

    size: int
    root: bytes


@dataclass(frozen=True)
class Receipt:
    """What a site says about one order.

    Attributes
    ----------
    answer : Acknowledgement
        The answer; its `seconds` are not part of the receipt and 0 when one is read.
    request : bytes
        32-byte digest of the request (`common.signed_requests.OpenedRequest.digest`).
    time : datetime
        When the site signed.
    tombstones : bytes or None
        32-byte commitment to the tombstones that the order left at the site, keyed hashes that only the site can make;
        None where it refused.
    witnessed : WitnessedHead or None
        Ties the receipt to one history of the log: whoever holds receipts of two sites sees if they were shown two.
    """

    answer: Acknowledgement
    request: bytes
    time: datetime
    tombstones: bytes | None
    witnessed: WitnessedHead | None

    def sign(self, key: SigningKey) -> Envelope:
        """Return the receipt in an envelope that the site's key signs."""
        answer, seen = self.answer, self.witnessed
        predicate = {
            "requestId": answer.request_id,
            "site": answer.site,
            "order": answer.number,
            "state": answer.state.value,
            "records": answer.records,
            "entries": answer.entries,
            "guarantee": answer.guarantee.value,
            "recordLoss": _loss_document(answer.record_loss),
            "subjectLoss": _loss_document(answer.subject_loss),
            "reason": answer.reason,
            "time": write_time(self.time),
            "tombstones": None if self.tombstones is None else self.tombstones.hex(),
            "witnessed": None if seen is None else {"size": seen.size, "root": seen.root.hex()},
        }
        return Statement("request", self.request, PREDICATE_TYPE, predicate).sign(key)

    @classmethod
    def of(cls, envelope: Envelope) -> Receipt:
        """Read an envelope without checking who signed it; raises `InvalidProof`."""
        statement = Statement.of(envelope, PREDICATE_TYPE)
        optional, nullable = (str, type(None)), (dict, type(None))
        request_id, site, order, state, records, entries, guarantee, *losses, reason, time, tombstones, seen = take(
            statement.predicate,
            "a receipt",
            requestId=str,
            site=str,
            order=int,
            state=str,
            records=int,
            entries=int,
            guarantee=str,
            recordLoss=nullable,
            subjectLoss=nullable,
            reason=str,
            time=str,
            tombstones=optional,
            witnessed=nullable,
        )
        if statement.subject != "request" or state not in set(SiteState) or guarantee not in set(Guarantee):
            raise InvalidProof("a receipt has a state or a guarantee that this version does not know")
        record_loss, subject_loss = map(_read_loss, losses)
        answer = Acknowledgement(
            number=order,
            site=site,
            request_id=request_id,
            state=SiteState(state),
            records=records,
            entries=entries,
            guarantee=Guarantee(guarantee),
            seconds=0.0,
            reason=reason,
            record_loss=record_loss,
            subject_loss=subject_loss,
        )
        _check(answer)
        return cls(
            answer,
            statement.digest,
            read_time(time),
            None if tombstones is None else read_hex(tombstones, "a commitment to tombstones"),
            None if seen is None else _read_witnessed(seen),
        )

    def check_describes(self, answer: Acknowledgement) -> None:
        """Check that the receipt is for exactly this answer; raises `InvalidProof` if it says something else."""
        mine = self.answer
        for what in (
            "number",
            "site",
            "request_id",
            "state",
            "records",
            "entries",
            "guarantee",
            "reason",
            "record_loss",
            "subject_loss",
        ):
            if getattr(mine, what) != getattr(answer, what):
                raise InvalidProof(f"the receipt and the answer of {answer.site!r} differ in {what.replace('_', ' ')}")


def _check(answer: Acknowledgement) -> None:
    """Refuse what no site answers, so that a receipt cannot claim a bound that its guarantee does not have."""
    losses = [loss for loss in (answer.record_loss, answer.subject_loss) if loss is not None]
    certified = answer.guarantee is Guarantee.CERTIFIED
    if (
        not answer.state.final
        or answer.number < 1
        or not 0 <= answer.entries <= answer.records
        or (answer.state is not SiteState.ERASED and answer.records)
        or len(losses) != (2 if certified else 0)
    ):
        raise InvalidProof("a receipt contradicts itself")


def _loss_document(loss: PrivacyLoss | None) -> dict[str, Any] | None:
    if loss is None:
        return None
    # JSON has no infinity: null is no bound.
    epsilon = loss.epsilon if math.isfinite(loss.epsilon) else None
    return {"epsilon": epsilon, "delta": loss.delta, "records": loss.records}


def _read_loss(document: Any) -> PrivacyLoss | None:
    if document is None:
        return None
    number = (int, float)
    epsilon, delta, records = take(document, "a privacy loss", epsilon=(*number, type(None)), delta=number, records=int)
    epsilon = math.inf if epsilon is None else float(epsilon)
    if epsilon < 0 or not 0 <= delta < 1 or records < 1:
        raise InvalidProof("a receipt has a privacy loss that is out of range")
    return PrivacyLoss(epsilon, float(delta), records)


def _read_witnessed(document: Any) -> WitnessedHead:
    size, root = take(document, "a witnessed head", size=int, root=str)
    if size < 1:
        raise InvalidProof("a witnessed head is of an empty log")
    return WitnessedHead(size, read_hex(root, "the root of a witnessed head"))
