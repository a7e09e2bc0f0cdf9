"""Several looks at once: what none of them tells alone, all of them may.

Song and Mittal 2021, "Systematic Evaluation of Privacy Risks of Machine Learning Models", arXiv 2003.10595, for the
modified entropy; which look counts how much is learned, on other records than those that are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.asking import honest_records, label_confidence, logit_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded

_PARTS = 5
_FEWEST = 10
"""Members, and others, below which nothing is learned from them."""

_SMALLEST = float(np.finfo(np.float32).tiny)


class Combined(Attack):
    """A logistic regression over confidence and modified entropy, with banks and without, and what banks change."""

    name = "combined"
    title = "several looks combined"
    question = "Can someone who knows some forgotten records tell the others by all that answers show together?"
    paper = "Song and Mittal 2021, arXiv 2003.10595"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score each record by what was learned from four fifths of the others; nothing where these are too few."""
        del shadows
        gone = honest_records(case)
        tests = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in gone}
        members, others = _looks(target.state, gone), _looks(target.state, tests)
        if min(len(members), len(others)) < _FEWEST:
            return Scores.none()
        return _cross_fitted(members, others, case.settings.seed)


def _looks(answers: Answers, records: Mapping[str, Encoded]) -> NDArray[np.float64]:
    """Return (n, 5) looks at records, hospital by hospital."""
    found = [np.empty((0, 5))]
    for site, some in records.items():
        full, weights = answers.answer(site, some), answers.weights_alone(site, some)
        sure, without = logit_confidence(full, some), logit_confidence(weights, some)
        entropies = _modified_entropy(full, some), _modified_entropy(weights, some)
        found.append(np.stack([sure, without, sure - without, *entropies], axis=1))
    return np.concatenate(found)


def _modified_entropy(probabilities: Tensor, records: Encoded) -> NDArray[np.float64]:
    """Return (n,) entropies that tell a sure right answer from a sure wrong one (Song and Mittal, equation 8)."""
    right = label_confidence(probabilities, records)
    every = probabilities.double().numpy()
    wrong = -every * np.log(np.maximum(1 - every, _SMALLEST))
    own = -right * np.log(np.maximum(1 - right, _SMALLEST))
    return np.asarray(wrong.sum(1) - own - (1 - right) * np.log(np.maximum(right, _SMALLEST)))


def _cross_fitted(members: NDArray[np.float64], others: NDArray[np.float64], seed: int) -> Scores:
    # Few commands attack, and it takes long to import.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    looks = np.concatenate([members, others])
    truth = np.concatenate([np.ones(len(members), dtype=np.int64), np.zeros(len(others), dtype=np.int64)])
    scores = np.empty(len(truth))
    for known, asked in StratifiedKFold(_PARTS, shuffle=True, random_state=seed).split(looks, truth):
        learner = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced"))
        learner.fit(looks[known], truth[known])
        scores[asked] = learner.decision_function(looks[asked])
    return Scores(scores[truth == 1], scores[truth == 0])
