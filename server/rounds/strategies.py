"""Flower's strategies by name. To offer another one, name it in `StrategyName` and add it here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Strategy,
)

from fedmunkey.common.settings.settings import Settings, StrategyName

_STRATEGIES: dict[StrategyName, tuple[type[FedAvg], Callable[[Settings], dict[str, Any]]]] = {
    StrategyName.FEDAVG: (FedAvg, lambda _: {}),
    StrategyName.FEDAVGM: (FedAvgM, lambda _: {"server_momentum": 0.9}),
    StrategyName.FEDPROX: (FedProx, lambda settings: {"proximal_mu": settings.proximal_mu}),
    StrategyName.FEDADAM: (FedAdam, lambda settings: {"eta": settings.server_learning_rate}),
    StrategyName.FEDADAGRAD: (FedAdagrad, lambda settings: {"eta": settings.server_learning_rate}),
    StrategyName.FEDYOGI: (FedYogi, lambda settings: {"eta": settings.server_learning_rate}),
    StrategyName.FEDMEDIAN: (FedMedian, lambda _: {}),
    StrategyName.FEDTRIMMEDAVG: (FedTrimmedAvg, lambda _: {}),
}


def make_strategy(settings: Settings) -> Strategy:
    """Return the Flower strategy that the settings name, with metrics averaged over sites."""
    strategy, options = _STRATEGIES[settings.strategy]
    return strategy(
        fraction_train=settings.fraction_train,
        fraction_evaluate=settings.fraction_evaluate,
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=settings.min_sites,
        train_metrics_aggr_fn=average_by_examples,
        evaluate_metrics_aggr_fn=average_over_sites,
        **options(settings),
    )


def average_by_examples(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Average metrics weighted by examples; what is not a number, a site without records, does not count."""
    return _average(replies, lambda metrics: float(metrics[weighted_by]))


def average_over_sites(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
    """Average metrics with equal weights, so that each hospital counts as one; what is not a number does not count."""
    del weighted_by
    return _average(replies, lambda _: 1.0)


_WORST = ("epsilon", "delta")
"""Bounds, of which the largest holds for every site."""


def _average(replies: list[RecordDict], weight: Callable[[Any], float]) -> MetricRecord:
    records = [next(iter(reply.metric_records.values())) for reply in replies]
    average = MetricRecord()
    # Each over the sites that say it: a site decides what it tells.
    for name in sorted({name for record in records for name in record}):
        saying = [record for record in records if name in record]
        pairs = [(float(record[name]), weight(record)) for record in saying]  # type: ignore[arg-type]
        known = [(value, share) for value, share in pairs if not math.isnan(value) and share > 0]
        if known and name in _WORST:
            average[name] = max(value for value, _ in known)
        elif known:
            average[name] = sum(value * share for value, share in known) / sum(share for _, share in known)
    return average
