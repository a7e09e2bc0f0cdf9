"""For how long a site answers from shared weights that hold what was erased since."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope

CONTRIBUTED, RENEW_WITHIN = "contributed-up-to", "renew-within"
"""In the facts about released weights that a site keeps: its last order before it contributed, and days."""


def check_renewed(about: Mapping[str, Any], store: KeyStore, now: datetime) -> None:
    """Check that weights which a site has taken over may still be answered from, by the facts that it keeps of them.

    They may not once they should have been renewed, since they hold what was erased after the site contributed. Raises
    `InvalidWeights`.
    """
    contributed, days = about.get(CONTRIBUTED), about.get(RENEW_WITHIN)
    if not isinstance(contributed, int) or not isinstance(days, int | float):
        return
    erased = [answer.number for answer in store.orders.read_answers() if answer.number > contributed and answer.entries]
    receipts = ReceiptBook(store.journal).read_all(erased)
    times = [Receipt.of(read_envelope(receipt)).time for receipt in receipts.values()]
    if times and now > (due := min(times) + timedelta(days=days)):
        raise InvalidWeights(
            f"the shared weights hold what was erased on {min(times):%Y-%m-%d} and should have been renewed by "
            f"{due:%Y-%m-%d %H:%M} UTC; nothing is answered from them until they are: have the coordinator run "
            "munkey-server run --renew"
        )
