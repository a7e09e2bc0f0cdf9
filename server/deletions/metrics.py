"""What Prometheus reads: whether deletions get through, and how long they take. No metric names a site or a patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedmunkey.common.service.metrics_service import served_registry
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.ledger.writer import Event

# From an agent that is connected to a site that comes back after a month.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 21_600, 86_400, 604_800, 2_592_000)


class LedgerCollector(Collector):
    """Counts when it is asked, so that every process of a service tells the same."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        summary = self._ledger.summary()
        requests = GaugeMetricFamily("fedmunkey_requests", "Deletion requests by state.", labels=["state"])
        for state, count in summary.requests.items():
            requests.add_metric([state.value], count)
        yield requests
        yield GaugeMetricFamily(
            "fedmunkey_pending_orders", "Orders that no site has answered.", value=summary.pending_orders
        )
        yield GaugeMetricFamily(
            "fedmunkey_oldest_pending_order_seconds",
            "Age of the oldest order that no site has answered; 0 if there is none.",
            value=summary.oldest_seconds,
        )
        yield GaugeMetricFamily(
            "fedmunkey_connected_sites",
            "Sites that follow their orders, at any process of the service.",
            value=summary.connected_sites,
        )
        yield GaugeMetricFamily(
            "fedmunkey_log_restored", "How often the log was restored from a copy.", value=len(summary.restored)
        )
        yield GaugeMetricFamily(
            "fedmunkey_lost_requests",
            "Requests that sites have answered and this ledger, restored from a copy, does not have.",
            value=len(summary.lost),
        )
        yield GaugeMetricFamily(
            "fedmunkey_renewals_owed",
            "Requests whose records are erased and still in the shared weights (exact).",
            value=summary.renewals_owed,
        )
        yield GaugeMetricFamily(
            "fedmunkey_renewal_late_seconds",
            "Since when the shared weights should have been renewed; 0 while there is time.",
            value=summary.renewal_late_seconds,
        )
        yield GaugeMetricFamily("fedmunkey_sites", "Sites in the federation.", value=summary.sites)


def make_registry(ledger: Ledger, *others: Collector) -> CollectorRegistry:
    """Return everything that is measured of a ledger; the histogram counts what ends while this process runs."""
    registry = CollectorRegistry()
    for collector in (LedgerCollector(ledger), *others):
        registry.register(collector)
    seconds = Histogram(
        "fedmunkey_erase_seconds",
        "Seconds from a request's submission to its end, of requests that this process saw end.",
        labelnames=["state"],
        buckets=_SECONDS,
        registry=registry,
    )

    def observe(events: Sequence[Event]) -> None:
        for event in events:
            if event.seconds is not None:
                seconds.labels(event.after).observe(event.seconds)

    ledger.listen(observe)
    return registry


@contextmanager
def served_metrics(ledger: Ledger, address: str, *others: Collector) -> Iterator[str]:
    """Serve a ledger's metrics while the context lasts, as `served_registry`; give the address."""
    with served_registry(make_registry(ledger, *others), address) as served:
        yield served
