"""What Prometheus reads of a site: whether it hears and forgets, and how old its weights are; nothing of a patient."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fedmunkey.client.deletions.lineage.exported_models import count_states
from fedmunkey.client.deletions.lineage.taken_releases import count_taken
from fedmunkey.client.deletions.promised_renewal import CONTRIBUTED, owed_renewal
from fedmunkey.client.deletions.receipt_book import ReceiptBook
from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.errors import FedmunkeyError, NotInstalled
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.proofs.receipts import Receipt
from fedmunkey.common.proofs.signing.statements import read_envelope

logger = logging.getLogger(__name__)


class SiteCollector(Collector):
    """Looks when it is asked: at the key store, the certificate and the weights in a site's folder."""

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; where the store cannot be read, only that it cannot."""
        try:
            found = [*self._of_store(), *self._of_files()]
        except (FedmunkeyError, sqlite3.Error, OSError) as error:
            logger.warning("the site cannot be measured: %s", error)
            found = []
        yield GaugeMetricFamily(
            "fedmunkey_site_readable", "Whether the site's folder can be read: 1, or 0.", value=float(bool(found))
        )
        yield from found

    def _of_store(self) -> list[Metric]:
        with self._folder.open() as store:
            found: list[Metric] = [
                _labelled("records", "Records held, by split.", "split", _count_records(store)),
                _gauge("last_order", "Number of the last deletion order that was carried out.", store.orders.last),
                _gauge(
                    "last_order_timestamp_seconds",
                    "When the site signed its answer to it; 0 before the first.",
                    _last_answered(store),
                ),
                _gauge(
                    "unanswered_orders",
                    "Orders whose answers the deletion service has not been given.",
                    len(store.orders.unacknowledged()),
                ),
                _gauge("log_timestamp_seconds", "When the coordinator's log was last seen; 0 if never.", _seen(store)),
                _gauge("log_alarms", "Faults of the coordinator's log.", len(ReceiptBook(store.journal).alarms())),
                _gauge("restored", "Whether the store was restored and has not caught up.", store.is_restored),
                _gauge(
                    "renewal_due_timestamp_seconds",
                    "By when weights that hold what was erased must be renewed; 0 where nothing is owed.",
                    self._renewal_due(store),
                ),
                _labelled("budget_epsilon", "Privacy budget (certified).", "of", _budget(store)),
            ]
            counts = count_states(self._folder, store)
            if counts is not None:
                text = "Models that were given away, by what is to be done."
                named = {state.replace(" ", "-"): count for state, count in counts.items()}
                found.append(_labelled("exported_models", text, "state", named))
            return found

    def _of_files(self) -> list[Metric]:
        identity, weights = self._folder.find_identity(), self._folder.shared_weights
        return [
            _gauge(
                "certificate_end_timestamp_seconds",
                "When the site's certificate ends; +Inf for a site without one.",
                math.inf if identity is None else identity.not_after.timestamp(),
            ),
            _gauge("releases", "Releases of shared weights that it has taken over (exact).", count_taken(self._folder)),
            _gauge(
                "release_timestamp_seconds",
                "When it took over the weights that it answers from; 0 before the first.",
                weights.stat().st_mtime if weights.exists() else 0.0,
            ),
        ]

    def _renewal_due(self, store: KeyStore) -> float:
        try:
            said = json.loads(self._folder.shared_weights.with_suffix(".json").read_text(encoding="utf-8"))
            about = dict(said["about"])
            # Reading all answers of many years takes its time, and mostly nothing is owed.
            some = store.orders.erasing(int(about[CONTRIBUTED]))
            owed = owed_renewal(about, store) if some else None
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0
        return 0.0 if owed is None else owed.due.timestamp()


def site_registry(folder: SiteFolder, *others: Collector) -> CollectorRegistry:
    """Return all that is measured of a site."""
    registry = CollectorRegistry()
    for collector in (SiteCollector(folder), *others):
        registry.register(collector)
    return registry


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fedmunkey_site_{name}", text, value=float(value))


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"fedmunkey_site_{name}", text, labels=[label])
    for value, number in values.items():
        found.add_metric([value], float(number))
    return found


def _count_records(store: KeyStore) -> dict[str, float]:
    return {split.value: store.records.count(split) for split in Split}


def _last_answered(store: KeyStore) -> float:
    last = store.orders.last
    receipts = ReceiptBook(store.journal).read_all([last]) if last else {}
    return Receipt.of(read_envelope(receipts[last])).time.timestamp() if receipts else 0.0


def _seen(store: KeyStore) -> float:
    time = ReceiptBook(store.journal).head_time()
    return 0.0 if time is None else time.timestamp()


def _budget(store: KeyStore) -> dict[str, float]:
    """Return the promised and the spent epsilon; nothing under other guarantees."""
    held = store.description
    if held.guarantee is not Guarantee.CERTIFIED:
        return {}
    try:
        return {"promised": held.epsilon, "spent": store.privacy.loss().epsilon}
    except NotInstalled:
        return {"promised": held.epsilon}
