"""A site as a witness of the coordinator's log: it keeps the last head and accepts only a log that extends it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.common.errors import InvalidDeletion, InvalidProof
from fedmunkey.common.proofs.log_heads import LogHead, LogUpdate, receipt_leaf
from fedmunkey.common.proofs.merkle import check_consistency, check_inclusion, leaf_hash
from fedmunkey.common.proofs.receipts import WitnessedHead
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKeys
from fedmunkey.common.service.deletion_service import DeletionService

logger = logging.getLogger(__name__)

_RECEIPTS_AT_ONCE = 50


def witness(
    service: DeletionService, book: ReceiptBook, trust: TrustedKeys, now: datetime, *, pending: Collection[int] = ()
) -> bool:
    """Look at the coordinator's log; keep its head if it extends the one that was seen last, else raise the alarm.

    A site that has raised the alarm goes on forgetting, for its requesters' signatures do not depend on the log.
    Without a trusted key of the log there is nothing to check. Orders that are `pending`, because the coordinator has
    not taken their answers yet or has refused them, cannot have their receipts in its log. Returns whether all is well;
    raises `ServiceUnavailable` if the service cannot be reached.
    """
    if not trust.of(Role.LOG):
        return True
    while True:
        seen = book.head()
        receipts = book.read_unproven(_RECEIPTS_AT_ONCE, without=pending)
        leaves = {number: leaf_hash(receipt_leaf(receipt)) for number, receipt in receipts.items()}
        evidence = b""
        try:
            update = service.log_update(seen.size if seen else 0, list(leaves.values()))
            if update is None:
                raise InvalidProof("the coordinator shows no log")
            evidence = update.head.to_bytes()
            head = _check(update, seen, leaves, trust)
        except (InvalidDeletion, InvalidProof) as error:
            fault = _fault(seen, str(error))
            book.raise_alarm(fault, now, evidence)
            logger.error("ALARM: %s", fault)
            return False
        if head.size:
            book.advance(WitnessedHead(head.size, head.root), evidence, list(leaves))
        if len(leaves) < _RECEIPTS_AT_ONCE:
            return True


def _check(update: LogUpdate, seen: WitnessedHead | None, leaves: dict[int, bytes], trust: TrustedKeys) -> LogHead:
    head = LogHead.of(update.head)
    trust.verify(update.head, Role.LOG, head.time)
    if seen is not None:
        check_consistency(seen.size, seen.root, head.size, head.root, update.consistency)
    if len(update.inclusions) != len(leaves):
        raise InvalidProof("the coordinator does not say of each receipt where it stands in the log")
    for (number, leaf), proof in zip(leaves.items(), update.inclusions, strict=True):
        if proof is None:
            raise InvalidProof(f"the receipt for order {number} is not in the log")
        check_inclusion(leaf, proof.number, head.size, proof.path, head.root)
    return head


def _fault(seen: WitnessedHead | None, error: str) -> str:
    before = f"; the last good head had {seen.size} leaves and root {seen.root.hex()[:16]}" if seen else ""
    return f"the coordinator's log cannot be trusted: {error}{before}"
