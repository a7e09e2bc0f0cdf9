"""Whether a new last layer finds in the shared weights what the old one no longer says.

Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv 1610.01644: a linear
classifier tells what a representation holds. Ways to unlearn that change what a model answers may leave what it
computes as it was, and whoever has the weights can put a layer of his own on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.asking import honest_records, join
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

_SMALLEST = float(np.finfo(np.float32).tiny)
_MOST_RETAINED = 2000
"""Records, of all hospitals together, that the probe learns from."""

_STEPS = 200
"""Of the probe's descent; one that has not arrived by then is as good as it gets for a few records."""


class LinearProbe(Attack):
    """Fit a linear classifier to what shared weights compute of retained records, then compare losses."""

    name = "linear-probe"
    title = "linear probe"
    question = "Does a new last layer on the shared weights, learned from retained records, know forgotten ones better?"
    paper = "Alain and Bengio 2016, arXiv 1610.01644"
    asked = "Probed by a new last layer, the federation"
    holds = "What the shared weights compute knows no more than the oracle's"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the log-probability that the probe gives to the label; nothing where only one class is retained."""
        del shadows
        gone = honest_records(case)
        tests = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in gone}
        seen, labels = _learned_from(target.state, case)
        if len(np.unique(labels)) < 2:
            return Scores.none()
        probe = _fit(seen, labels)
        return Scores(_log_probabilities(probe, target.state, gone), _log_probabilities(probe, target.state, tests))


def represent(answers: Answers, site: str, records: Encoded) -> NDArray[np.float64]:
    """Return (n, d) numbers that the shared weights make of records: what a last layer reads, or else what they say."""
    head = getattr(getattr(answers, "model", None), "head", None)
    if not isinstance(head, nn.Module):
        said = answers.weights_alone(site, records).double().numpy()
        return np.asarray(np.log(np.maximum(said, _SMALLEST)))
    read: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read.append(inputs[0].detach().reshape(len(inputs[0]), -1))

    hook = head.register_forward_pre_hook(note)
    try:
        answers.weights_alone(site, records)
    finally:
        hook.remove()
    return np.asarray(torch.cat(read).double().numpy()) if read else np.empty((0, 0))


def _learned_from(answers: Answers, case: Case) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what the weights compute of retained records, evenly chosen, and the records' labels."""
    retained = {name: some for name, some in case.retained().items() if len(some.records)}
    step = max(1, -(-sum(len(some.records) for some in retained.values()) // _MOST_RETAINED))
    chosen = {name: some.select(np.arange(0, len(some.records), step)) for name, some in retained.items()}
    found = [represent(answers, name, some) for name, some in chosen.items()]
    return np.concatenate(found), np.concatenate([some.records.labels for some in chosen.values()])


def _fit(seen: NDArray[np.float64], labels: NDArray[np.int64]) -> Any:
    # Few commands attack, and it takes long to import.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=_STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(seen, labels)


def _log_probabilities(probe: Any, answers: Answers, records: Mapping[str, Encoded]) -> NDArray[np.float64]:
    """Return what the probe makes of each record's label; of a class that it has not seen, next to nothing."""
    places = {int(label): place for place, label in enumerate(probe.classes_)}
    parts = []
    for site, some in records.items():
        if not len(some.records):
            continue
        said = np.column_stack([probe.predict_proba(represent(answers, site, some)), np.zeros(len(some.records))])
        column = [places.get(int(label), len(places)) for label in some.records.labels]
        parts.append(np.log(np.maximum(said[np.arange(len(column)), column], _SMALLEST)))
    return join(parts)
