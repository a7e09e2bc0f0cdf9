"""A deletion agent with a planted bug, which `munkey-sim faults` must notice: it answers before it deletes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import fedmunkey.client.deletions.agent
from fedmunkey.client.deletions.agent import Answering
from fedmunkey.common.deletions.words import Acknowledgement, DeletionOrder, SiteState
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.faults import timed_programs


class AnsweringFirst(Answering):
    """Tells the service that an order is carried out, and dies every other time before it is."""

    def apply(self, orders: Sequence[DeletionOrder]) -> list[Acknowledgement]:
        """Answer, then perhaps apply."""
        for order in orders:
            # No order erases as many, so the lie cannot happen to be the truth.
            claims = (SiteState.ERASED, 999_999, 0, Guarantee.EMPIRICAL, 0.0)
            answer = Acknowledgement(order.number, order.site, order.request.request_id, *claims)
            self._service.acknowledge(answer)
            if order.number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(orders)


def main() -> None:
    """Run `munkey-client` with that bug."""
    fedmunkey.client.deletions.agent.Answering = AnsweringFirst  # type: ignore[misc]
    timed_programs.act_as_site()
