"""Federations that an attacker trains himself, to see how answers about members differ from those about others.

Carlini et al. 2022, arXiv 2112.03570, and with the deletion afterwards Hayes et al. 2024, arXiv 2403.01218.
The attacker knows the retained records and which records might have been forgotten, which is the worst case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.attacks.attack import Shadow
from fedmunkey.simulations.attacks.candidates import candidates
from fedmunkey.simulations.attacks.remembered import remember
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.method import Budget, Method, Trained

FEWEST_SHADOWS = 4


def shadow_case(case: Case, number: int, count: int) -> Case:
    """Return what a shadow learns and forgets: the retained records, half of the candidates, and all canaries.

    Candidates and canaries are forgotten again. Canaries are learned because they move the attacked federation's
    weights as well: next to shadows without them every record's answers look strange.

    Shadows 0 and 1, 2 and 3, and so on have complementary halves, drawn at each hospital, so that each candidate is in
    half of all shadows. Each has first weights and random choices of its own. Held-out candidates that a shadow learns
    from become revocable training records of their hospital; forgotten ones that it does not learn from are gone.

    `number` is from 0, of an even `count` of at least `FEWEST_SHADOWS`. Raises `InvalidSetting` if the count is odd or
    too small.
    """
    if count < FEWEST_SHADOWS or count % 2:
        raise InvalidSetting(
            f"{count} shadows: each record must be in half of them and twice at least; "
            f"give an even number of at least {FEWEST_SHADOWS}"
        )
    asked = candidates(case)
    hospitals, deletion, canaries = [], {}, {}
    for hospital in case.hospitals:
        name, wrong = hospital.name, case.canaries[hospital.name]
        half = _half(asked.rows(name), number, derive_seed(case.settings.seed, "shadows", name))
        chosen = np.union1d(half, wrong)
        stays = np.setdiff1d(np.arange(len(hospital.given.records)), np.setdiff1d(case.forgotten[name], chosen))
        hospitals.append(replace(hospital, given=_as_training(hospital.given, chosen).select(stays)))
        deletion[name] = np.flatnonzero(np.isin(stays, chosen))
        canaries[name] = np.flatnonzero(np.isin(stays, wrong))
    question = replace(case, hospitals=hospitals, deletions=[deletion], canaries=canaries)
    return question.with_seed(derive_seed(case.settings.seed, "shadow", number) % 2**31)


def train_shadows(case: Case, method: Method[Any], count: int, budget: Budget) -> list[Shadow]:
    """Train shadow federations, one after the other; each forgets the candidates that it learned from, and canaries.

    Raises `InvalidSetting` if the count is odd or too small.
    """
    shadows = []
    for number in range(count):
        question = shadow_case(case, number, count)
        trained = method.family.train(question.everything(), question.settings, question.shape)
        shadows.append(forget_in_shadow(case, question, trained, method, budget))
    return shadows


def forget_in_shadow(case: Case, question: Case, trained: Trained, method: Method[Trained], budget: Budget) -> Shadow:
    """Let a shadow that has learned what `shadow_case` asks forget, and keep what it says of candidates."""
    asked = candidates(case)
    records = {h.name: h.given.select(asked.rows(h.name)) for h in case.hospitals}
    deleted = method.forget(trained, question, budget).answers
    members = {
        name: frozenset(learned.records.record_ids.tolist()) & frozenset(records[name].records.record_ids.tolist())
        for name, learned in question.forget_records().items()
    }
    return Shadow(remember(trained, records), remember(deleted, records), members)


def _half(rows: NDArray[np.int64], number: int, seed: int) -> NDArray[np.int64]:
    """Return half of the candidates, the other half for the next shadow."""
    order = np.random.default_rng(derive_seed(seed, number // 2)).permutation(rows)
    halves = order[: len(rows) // 2], order[len(rows) // 2 :]
    return np.sort(halves[number % 2])


def _as_training(given: Encoded, chosen: NDArray[np.int64]) -> Encoded:
    """Return records of which the chosen ones are revocable training records."""
    splits, consents = given.records.splits.copy(), given.records.consents.copy()
    splits[chosen], consents[chosen] = Split.TRAIN.value, Consent.REVOCABLE.value
    return replace(given, records=replace(given.records, splits=splits, consents=consents))
