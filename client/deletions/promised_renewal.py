"""For how long a site answers from shared weights that hold what was erased since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope

CONTRIBUTED, RENEW_WITHIN = "contributed-up-to", "renew-within"
"""In the facts about released weights that a site keeps: its last order before it contributed, and days."""

INSTRUCTED = "instructed-up-to"
"""There as well: the site's position in its holds and opt-outs before it contributed."""


@dataclass(frozen=True)
class OwedRenewal:
    """When the first of what weights still hold was erased, and by when they should be renewed without it."""

    erased: datetime
    due: datetime

    def check(self, now: datetime) -> None:
        """Check that the weights may still be answered from; raises `InvalidWeights`."""
        if now > self.due:
            raise InvalidWeights(
                f"the shared weights hold what was erased on {self.erased:%Y-%m-%d} and should have been renewed by "
                f"{self.due:%Y-%m-%d %H:%M} UTC; nothing is answered from them until they are: have the coordinator "
                "run munkey-server run --renew"
            )


def owed_renewal(about: Mapping[str, Any], store: KeyStore) -> OwedRenewal | None:
    """Return what is owed for weights that a site has taken over, by the facts that it keeps of them.

    None where they hold nothing that was erased after the site contributed.
    """
    contributed, days = about.get(CONTRIBUTED), about.get(RENEW_WITHIN)
    if not isinstance(contributed, int) or not isinstance(days, int | float):
        return None
    erased = [answer.number for answer in store.orders.read_answers() if answer.number > contributed and answer.entries]
    receipts = ReceiptBook(store.journal).read_all(erased)
    times = [Receipt.of(read_envelope(receipt)).time for receipt in receipts.values()]
    return OwedRenewal(min(times), min(times) + timedelta(days=days)) if times else None
