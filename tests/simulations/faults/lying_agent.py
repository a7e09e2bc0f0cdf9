"""A deletion agent with a planted bug, which `munkey-sim faults` must notice: it answers before it deletes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace

import fedmunkey.client.deletions.agent
from fedmunkey.client.deletions.agent import Answering
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.clock import utc_now
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signed_requests import OpenedRequest
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.simulations.faults import timed_programs


class AnsweringFirst(Answering):
    """Tells the service that an order is carried out, and dies every other time before it is."""

    @property
    def _key(self) -> SigningKey:
        return SigningKey.read(SiteFolder(self._store.path.parent).signing_key)

    def apply(self, orders: Sequence[DeletionOrder]) -> list[Acknowledgement]:
        """Answer, then perhaps apply."""
        for order in orders:
            # No order erases as many, so the lie cannot happen to be the truth.
            claims = (SiteState.ERASED, 999_999, 0, Guarantee.EMPIRICAL, 0.0)
            answer = Acknowledgement(order.number, order.site, order.request.request_id, *claims)
            request = OpenedRequest.of(order.request).digest
            receipt = Receipt(answer, request, utc_now(), bytes(32), None).sign(self._key).to_bytes()
            self._service.acknowledge(replace(answer, receipt=receipt))
            if order.number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(orders)


def main() -> None:
    """Run `munkey-client` with that bug."""
    fedmunkey.client.deletions.agent.Answering = AnsweringFirst  # type: ignore[misc]
    timed_programs.act_as_site()
