"""A site as a witness of the coordinator's log: it keeps the last head and accepts only a log that extends it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.common.errors import InvalidDeletion, InvalidProof, NotAllowed, ServiceUnavailable, count_of
from fedmunkey.common.proofs.log_heads import LogHead, LogUpdate, receipt_leaf, restored_leaf
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.receipts import Receipt, WitnessedHead
from fedmunkey.common.proofs.restored_log import RestoredLog, signed_by, verify_restored
from fedmunkey.common.proofs.signing.dsse import Envelope
from fedmunkey.common.proofs.signing.statements import read_envelope, write_time
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.service.deletion_service import DeletionService

logger = logging.getLogger(__name__)

_RECEIPTS_AT_ONCE = 50
_LOOKS = 5


def witness(
    service: DeletionService,
    book: ReceiptBook,
    trust: TrustedKeys,
    now: datetime,
    *,
    pending: Callable[[], Collection[int]] = tuple,
    still_served: Callable[[], object] = lambda: None,
) -> bool:
    """Look at the coordinator's log; keep its head if it extends the one that was seen last, else raise the alarm.

    A log that was restored from a copy is followed where its key and the officers have signed that, in the log: the
    site keeps for good what it had seen, and says it as loudly as an alarm, once.

    A site that has raised the alarm goes on forgetting, for its requesters' signatures do not depend on the log.
    Without a trusted key of the log there is nothing to check. Orders that are `pending`, because the coordinator has
    not taken their answers yet or has refused them, cannot have their receipts in its log; which they are is asked once
    the receipts are read, for others of the site's programs sign and give answers meanwhile. Returns whether all is
    well; raises `ServiceUnavailable` if the service cannot be reached. Where it refuses to show its log, `still_served`
    is called, and may raise: whoever is refused everything is no member any more, which is no fault of the log.
    """
    if not trust.of(Role.LOG):
        return True
    while True:
        seen, receipts = book.head(), _to_prove(book, pending)
        try:
            shown = _look(service, seen, receipts, trust)
        except _Fault as fault:
            if fault.refused:
                still_served()
            if book.head() != seen:
                continue
            if seen is not None and _follow_restored(service, book, trust, now, seen):
                # Answers that the coordinator has lost are given again first; the next look asks for all receipts.
                _give_back(service, book, trust, now)
                return True
            # Only where none of the site's other programs has followed a log meanwhile that this one did not know.
            if book.raise_alarm(said := _said(seen, fault), now, fault.evidence, seen):
                logger.error("ALARM: %s", said)
                return False
            continue
        head = shown.head
        if head.size and not book.advance(head, shown.evidence, list(receipts), now, seen):
            continue
        if len(receipts) < _RECEIPTS_AT_ONCE:
            return _give_back(service, book, trust, now)


def _to_prove(book: ReceiptBook, pending: Callable[[], Collection[int]]) -> dict[int, bytes]:
    """Return receipts that the log must hold, some at a time: those whose answers the coordinator has."""
    left_out: set[int] = set()
    while receipts := book.read_unproven(_RECEIPTS_AT_ONCE, without=left_out):
        new = receipts.keys() & set(pending())
        if not new:
            break
        left_out |= new
    return receipts


@dataclass(frozen=True)
class _Shown:
    """A head of the log that was checked, as it was sent."""

    head: WitnessedHead
    evidence: bytes


class _Fault(Exception):  # noqa: N818
    """The log is not what it should be; `evidence` is the head that shows it, if one was sent."""

    def __init__(self, error: Exception, evidence: bytes) -> None:
        super().__init__(str(error))
        self.refused, self.evidence = isinstance(error, NotAllowed), evidence


def _look(
    service: DeletionService, seen: WitnessedHead | None, receipts: Mapping[int, bytes], trust: TrustedKeys
) -> _Shown:
    """Ask for the log's head and where receipts stand in it; raises `_Fault` unless it extends what was seen."""
    leaves = {number: leaf_hash(receipt_leaf(receipt)) for number, receipt in receipts.items()}
    evidence = b""
    try:
        update = service.log_update(seen.size if seen else 0, list(leaves.values()))
        if update is None:
            raise InvalidProof("the coordinator shows no log")
        evidence = update.head.to_bytes()
        named = {f"the receipt for order {number}": leaf for number, leaf in leaves.items()}
        head = _check(update, seen, named, trust)
    except (InvalidDeletion, InvalidProof) as error:
        raise _Fault(error, evidence) from None
    return _Shown(WitnessedHead(head.size, head.root), evidence)


def _give_back(service: DeletionService, book: ReceiptBook, trust: TrustedKeys, now: datetime) -> bool:
    """Give back the receipts for orders that the ledger has lost, until its log holds them; return whether it does.

    By them the ledger knows again which requests it had, and whoever asked can ask for the same once more.
    """
    given: set[int] = set()
    while receipts := book.read_lost(_RECEIPTS_AT_ONCE):
        leaves = {number: leaf_hash(receipt_leaf(receipt)) for number, receipt in receipts.items()}
        seen = book.head()
        try:
            update = service.log_update(seen.size if seen else 0, list(leaves.values()))
            if update is None:
                return False
            held = {
                number: leaf
                for (number, leaf), proof in zip(leaves.items(), update.inclusions, strict=True)
                if proof is not None
            }
            shown = replace(update, inclusions=tuple(proof for proof in update.inclusions if proof is not None))
            head = _check(shown, seen, {f"receipt {-number}": leaf for number, leaf in held.items()}, trust)
            if not book.advance(WitnessedHead(head.size, head.root), update.head.to_bytes(), list(held), now, seen):
                continue
            lost = [number for number in receipts if number not in held]
            if given.intersection(lost):
                raise InvalidProof("receipts that were given back are not in the log")
            if lost:
                given.update(lost)
                site = Receipt.of(read_envelope(receipts[lost[0]])).answer.site
                service.recall(site, [receipts[number] for number in lost])
        except (InvalidDeletion, InvalidProof) as error:
            logger.warning("receipts for orders that the ledger has lost are not taken back: %s", error)
            return False
    return True


def _check(update: LogUpdate, seen: WitnessedHead | None, leaves: Mapping[str, bytes], trust: TrustedKeys) -> LogHead:
    """Check that a log extends what was seen and holds leaves, by what they are; raises `InvalidProof`."""
    head = LogHead.of(update.head)
    trust.verify(update.head, Role.LOG, head.time)
    if seen is not None:
        check_consistency(seen.size, seen.root, head.size, head.root, update.consistency)
    if len(update.inclusions) != len(leaves):
        raise InvalidProof("the coordinator does not say of each receipt where it stands in the log")
    for (what, leaf), proof in zip(leaves.items(), update.inclusions, strict=True):
        if proof is None:
            raise InvalidProof(f"{what} is not in the log")
        check_inclusion(leaf, proof.number, head.size, proof.path, head.root)
    return head


def _follow_restored(
    service: DeletionService, book: ReceiptBook, trust: TrustedKeys, now: datetime, seen: WitnessedHead
) -> bool:
    """Follow a log that was restored from a copy, if what is said of that explains what this site has `seen`."""
    try:
        shown = service.log_update(0)
    except (InvalidDeletion, InvalidProof):
        return False
    for envelope in reversed(shown.restored if shown else ()):
        try:
            said, head, signers = _check_restored(service, book, trust, envelope, now)
        except (InvalidDeletion, InvalidProof) as error:
            logger.warning("the coordinator's log says that it was restored, which is not followed: %s", error)
            continue
        leaves = count_of(seen.size, "leaf", "leaves")
        note = (
            f"the coordinator's log was {said.words}; signed by {signed_by(signers)}; this site had seen "
            f"{leaves}, root {seen.root.hex()[:16]}, and what it saw after "
            f"leaf {said.kept.size} is lost there; it follows the log from here and keeps what shows the loss"
        )
        of_head = LogHead.of(head)
        witnessed = WitnessedHead(of_head.size, of_head.root)
        if not book.follow_restored(note, now, envelope, said.kept.size, witnessed, head.to_bytes(), seen):
            return False
        logger.error("LOG RESTORED: %s", note)
        return True
    return False


def _check_restored(
    service: DeletionService, book: ReceiptBook, trust: TrustedKeys, envelope: Envelope, now: datetime
) -> tuple[RestoredLog, Envelope, tuple[TrustedKey, ...]]:
    """Check that a statement explains why the log does not extend what was seen; return it, a head and who signed.

    It explains only what was seen before it was said, and after the copy: every head up to there must fit still.
    """
    signers = verify_restored(envelope, trust, heard=now)
    said = RestoredLog.of(envelope)
    last = book.head_time()
    if last is not None and last > said.time:
        raise InvalidProof(f"this site has seen a head of it since, on {write_time(last)}; have it said again")
    fitting = [said.kept, said.head, book.head_up_to(said.kept.size)]
    for _ in range(_LOOKS):
        heads = {_show_restored(service, before, envelope, said, trust) for before in fitting if before is not None}
        if len(heads) == 1:
            return said, heads.pop(), signers
    # Each question was about one state of the log, and it may have grown between two.
    raise ServiceUnavailable("the coordinator's log grows while it is looked at; try again")


def _show_restored(
    service: DeletionService, before: WitnessedHead, envelope: Envelope, said: RestoredLog, trust: TrustedKeys
) -> Envelope:
    """Return the head of a log that extends an earlier one and holds a statement; raises `InvalidProof`."""
    leaf = leaf_hash(restored_leaf(envelope.to_bytes()))
    update = service.log_update(before.size, [leaf])
    if update is None:
        raise InvalidProof("the coordinator shows no log")
    _check(update, before if before.size else None, {"the statement that it was restored": leaf}, trust)
    place = update.inclusions[0]
    if place is None or place.number < said.head.size:
        raise InvalidProof("the statement stands in the log before the head that it names")
    return update.head


def _said(seen: WitnessedHead | None, fault: _Fault) -> str:
    before = (
        f"; the last good head had {count_of(seen.size, 'leaf', 'leaves')} and root {seen.root.hex()[:16]}"
        if seen
        else ""
    )
    return f"the coordinator's log cannot be trusted: {fault}{before}"
