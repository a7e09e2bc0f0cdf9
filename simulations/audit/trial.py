"""One trial of an audit: a federation, its deletion, two oracles and every attack, with one seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model_choice import choose_encoder
from fedmunkey.common.programs.bound_program import temporary_folder
from fedmunkey.simulations.attacks.asking import honest_records
from fedmunkey.simulations.attacks.attack import Attacked, Scores, Shadow
from fedmunkey.simulations.attacks.registry import ATTACKS, USUAL
from fedmunkey.simulations.attacks.shadows import train_shadows
from fedmunkey.simulations.audit.groups import groups_of
from fedmunkey.simulations.audit.key_stores import delete_in_key_stores, delete_in_solved_stores
from fedmunkey.simulations.federation.answers import Answers, Banked
from fedmunkey.simulations.federation.case import Case, seen_although_forgotten
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.measurement import Measurement, measure
from fedmunkey.simulations.federation.solved_federation import SolvedFederation
from fedmunkey.simulations.forget_sets.question import Question
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, Method, training_bytes
from fedmunkey.simulations.unlearning.munkey import MunkeyFederation
from fedmunkey.simulations.unlearning.registry import METHODS
from fedmunkey.simulations.unlearning.retraining import other_choices

STATES = ("before", "after", "oracle", "other_oracle")
"""Before forgetting, afterwards, and two federations that never saw the records."""


@dataclass(frozen=True)
class AfterDeletion:
    """The federation after some of several deletions: accuracies in percent.

    The second is on all that is forgotten by then, the third on what the first deletion forgot: where it rises again,
    a later deletion has brought it back.
    """

    test_accuracy: float
    forget_accuracy: float
    first_forget_accuracy: float


@dataclass(frozen=True)
class Trial:
    """What one seed showed.

    Attributes
    ----------
    forgotten, canaries, deletions : int
        Records that were forgotten, those of them with wrong labels, and in how many deletions.
    scores : mapping
        For each attack, by name, and each of `STATES`, its scores; without those that cannot be made on this federation
        or have nobody to tell apart, and empty if all that is forgotten are canaries.
    groups : mapping
        By name, which of the forgotten records without canaries are in it, a mask in the order of `known`.
    seen : int
        Forgotten records that an oracle learned from.
    kept : int or None
        Forgotten records whose key a bank still holds; None without banks.
    identical : bool or None
        Whether the state after deletion has the same bytes as the oracle's; None without banks.
    rounds : tuple of float
        Test accuracy, in percent, after each round of training.
    steps : tuple of AfterDeletion
        After each deletion, where there are several.
    forget_seconds, retrain_seconds : float
        The slowest hospital's, or all of the method's training; and training the oracle, with one thread.
    forget_bytes, retrain_bytes : int
        Sent to and from all hospitals.
    """

    seed: int
    forgotten: int
    canaries: int
    deletions: int
    known: Mapping[str, Measurement]
    scores: Mapping[str, Mapping[str, Scores]]
    groups: Mapping[str, NDArray[np.bool_]]
    seen: int
    kept: int | None
    identical: bool | None
    rounds: tuple[float, ...]
    steps: tuple[AfterDeletion, ...]
    forget_seconds: float
    retrain_seconds: float
    forget_bytes: int
    retrain_bytes: int


def attempt(question: Question, images: Encoded, method: str, shadows: int, attacks: Sequence[str], seed: int) -> Trial:
    """Audit a method with one seed, in this process, with one thread.

    `method` and `attacks` are names, and `shadows` says how many federations the attacker trains; with 0, attacks that
    need them are left out.
    """
    torch.set_num_threads(1)
    return audit_case(question.case(images, seed), METHODS[method], shadows, question.budget, attacks)


def audit_case(case: Case, method: Method[Any], shadows: int, budget: Budget, attacks: Sequence[str] = USUAL) -> Trial:
    """Train, forget, train two oracles, and attack them all; parameters as for `attempt`."""
    family, retained = method.family, retained_for_oracle(case)
    rounds: list[float] = []
    nothing = {name: rows[:0] for name, rows in case.forgotten.items()}

    def note(number: int, answers: Answers) -> None:
        del number
        rounds.append(measure(answers, case.hospitals, nothing, case.forgotten).test_accuracy)

    trained = family.train(case.everything(), case.settings, case.shape, after_round=note)
    forgotten, forget_seconds = _forget(trained, case, method, budget)
    start = time.perf_counter()
    oracle = family.train(retained, case.settings, case.shape)
    retrain_seconds = time.perf_counter() - start
    states = {
        "before": trained,
        "after": forgotten.answers,
        "oracle": oracle,
        "other_oracle": family.train(retained, other_choices(case).settings, case.shape),
    }
    return Trial(
        seed=case.settings.seed,
        forgotten=sum(map(len, case.forgotten.values())),
        canaries=sum(map(len, case.canaries.values())),
        deletions=len(case.deletions),
        known={name: known(state, case) for name, state in states.items()},
        scores=_attack(states, case, attacks, train_for(attacks, case, method, shadows, budget)),
        groups=groups_of(case),
        seen=seen_although_forgotten(case, retained),
        kept=count_kept(forgotten.answers, case),
        identical=_identical(forgotten.answers, oracle),
        rounds=tuple(rounds),
        steps=_steps(trained, case, method, budget),
        forget_seconds=forget_seconds,
        retrain_seconds=retrain_seconds,
        forget_bytes=forgotten.bytes_sent,
        retrain_bytes=training_bytes(oracle, case.settings.descending_rounds),
    )


def retained_for_oracle(case: Case) -> dict[str, Encoded]:
    """Return what oracles learn from; `seen_although_forgotten` checks it against the case."""
    return case.retained()


def known(answers: Answers, case: Case) -> Measurement:
    """Measure a federation on what the case forgets."""
    return measure(answers, case.hospitals, case.forgotten, case.forgotten, case.canaries)


def count_kept(answers: Answers, case: Case) -> int | None:
    """Count forgotten records whose key a hospital still holds; one that a retained record shares does not count."""
    if not isinstance(answers, Banked):
        return None
    retained, kept = case.retained(), 0
    for name, gone in case.forget_records().items():
        held, stays = _rows(answers.keys_of(name)), _rows(retained[name].encoding.keys)
        kept += sum(key in held and key not in stays for key in _rows_in_order(gone.encoding.keys))
    return kept


def _forget(trained: Any, case: Case, method: Method[Any], budget: Budget) -> tuple[Forgotten, float]:
    """Forget and return the seconds that it took; MUNKEY's deletion goes through real key stores."""
    if isinstance(trained, MunkeyFederation | SolvedFederation):
        encoder: Encoder = choose_encoder(case.settings)
        with temporary_folder("munkey-audit-") as folder:
            if isinstance(trained, SolvedFederation):
                renewed, seconds = delete_in_solved_stores(trained, case, encoder, folder)
                return Forgotten(renewed, renewed.sent_bytes), seconds
            after, seconds = delete_in_key_stores(trained, case, encoder, folder)
        return Forgotten(after, 0), seconds
    start = time.perf_counter()
    forgotten = method.forget(trained, case, budget)
    return forgotten, time.perf_counter() - start


def train_for(attacks: Sequence[str], case: Case, method: Method[Any], shadows: int, budget: Budget) -> list[Shadow]:
    """Train the attacker's federations, where an attack needs them and there is a record to ask about."""
    if not shadows or not honest_records(case) or not any(ATTACKS[name].shadows for name in attacks):
        return []
    return train_shadows(case, method, shadows, budget)


def _attack(
    states: Mapping[str, Answers], case: Case, attacks: Sequence[str], shadows: Sequence[Shadow]
) -> dict[str, dict[str, Scores]]:
    if not honest_records(case):
        return {}
    made = [ATTACKS[name] for name in attacks if shadows or not ATTACKS[name].shadows]
    found = {
        attack.name: {
            state: attack.score(Attacked(answers, states["before"]), case, shadows) for state, answers in states.items()
        }
        for attack in made
    }
    return {name: scores for name, scores in found.items() if all(one.usable for one in scores.values())}


def _steps(trained: Any, case: Case, method: Method[Any], budget: Budget) -> tuple[AfterDeletion, ...]:
    """Measure after each of several deletions."""
    if len(case.deletions) < 2:
        return ()
    found = []
    for count in range(1, len(case.deletions) + 1):
        part = _first_deletions(case, count)
        answers = method.forget(trained, part, budget).answers
        measured, first = known(answers, part), known(answers, _first_deletions(case, 1))
        found.append(AfterDeletion(measured.test_accuracy, measured.forget_accuracy, first.forget_accuracy))
    return tuple(found)


def _first_deletions(case: Case, count: int) -> Case:
    part = replace(case, deletions=case.deletions[:count])
    return replace(part, canaries=_within(case.canaries, part))


def _within(canaries: Mapping[str, Any], part: Case) -> dict[str, Any]:
    return {name: rows[[row in part.forgotten[name] for row in rows.tolist()]] for name, rows in canaries.items()}


def _identical(after: Answers, oracle: Answers) -> bool | None:
    if isinstance(after, MunkeyFederation) and isinstance(oracle, MunkeyFederation):
        return after.same_bytes(oracle)
    if isinstance(after, SolvedFederation) and isinstance(oracle, SolvedFederation):
        return after.same_bytes(oracle)
    return None


def _rows(keys: torch.Tensor) -> frozenset[bytes]:
    return frozenset(_rows_in_order(keys))


def _rows_in_order(keys: torch.Tensor) -> Sequence[bytes]:
    return [key.tobytes() for key in keys.numpy()]
