"""The three guarantees side by side on one data set: what each costs in accuracy, and what it leaves of the forgotten.

For each guarantee and seed a federation is trained, some records are deleted from the banks, and the result is compared
with its oracle: the same federation trained without them. A second oracle, from other first weights and other random
choices, says how far two federations that never saw the records are apart by chance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from client.dataset import Consent, Split
from client.noisy_step import noisy_steps_of_round
from common.errors import InvalidDeletion
from common.guarantees import Guarantee
from common.model_choice import choose_shape
from common.noisy_steps import NoisySteps
from common.privacy import epsilon_of
from common.randomness import derive_seed
from common.recipe import Recipe
from common.settings import Settings
from simulations.answers import HospitalBank, MunkeyAnswers
from simulations.federated_loop import Learned, learn
from simulations.hospitals import Encoded, Hospital, divide
from simulations.measurement import Measurement, measure
from simulations.worker_processes import worker_processes

_OTHER_SEED = 1_000_003
"""Added to the seed of the second oracle."""


@dataclass(frozen=True)
class Trial:
    """What one guarantee did with one seed.

    Attributes
    ----------
    guarantee : Guarantee
        Which one.
    seed : int
        Which division of the records, forget set, first weights and random choices.
    forgotten, oracle, other_oracle : Measurement
        After deletion; retrained without the forgotten records; the same from other random choices.
    without_noise : float
        Test accuracy, in percent, of `certified` training without noise; NaN otherwise.
    epsilon, delta : float
        A record's privacy loss, the largest of all sites; infinity where nothing bounds it, 0 under `exact`.
    identical : bool
        Whether shared weights and exemplar tokens after deletion have the same bytes as the oracle's.
    seconds : float
        Training time of the federation, with one thread.
    bytes_sent : int
        Shared weights sent to and from all sites.
    """

    guarantee: Guarantee
    seed: int
    forgotten: Measurement
    oracle: Measurement
    other_oracle: Measurement
    without_noise: float
    epsilon: float
    delta: float
    identical: bool
    seconds: float
    bytes_sent: int

    @property
    def gap(self) -> float:
        """Average Gap to the oracle, in points."""
        return self.forgotten.gap(self.oracle)

    @property
    def chance(self) -> float:
        """Average Gap between two oracles, in points."""
        return self.other_oracle.gap(self.oracle)


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes
    ----------
    images : Encoded
        The data set.
    settings : Settings
        Of the federation; the guarantee is varied.
    hospitals : int
        How many there are.
    alpha : float
        How alike they are; infinity for the same share of each class.
    permanent : float
        Share of the records that were given for good; only under `exact` does it matter.
    forget : float
        Share of all training records that is forgotten, drawn from those that may be.
    """

    images: Encoded
    settings: Settings
    hospitals: int
    alpha: float
    permanent: float
    forget: float


def compare(
    question: Question,
    guarantees: Sequence[Guarantee],
    seeds: Sequence[int],
    *,
    processes: int,
    done: Callable[[Trial], None] = lambda _: None,
) -> list[Trial]:
    """Try every guarantee with every seed, as many at a time as there are processes; order as in the arguments.

    Raises
    ------
    InvalidDeletion
        If more is to be forgotten than may be, or nothing, or everything that a hospital has; before anything is tried.
    """
    for seed in seeds:
        _divide(question, seed)
    cells = list(product(guarantees, seeds))
    trials: dict[tuple[Guarantee, int], Trial] = {}
    with worker_processes(min(processes, len(cells))) as pool:
        running = {pool.submit(attempt, question, *cell): cell for cell in cells}
        for future in as_completed(running):
            trials[running[future]] = future.result()
            done(trials[running[future]])
    return [trials[cell] for cell in cells]


def attempt(question: Question, guarantee: Guarantee, seed: int) -> Trial:
    """Try one guarantee with one seed, in this process, with one thread."""
    torch.set_num_threads(1)
    hospitals, forgotten = _divide(question, seed)
    kept = {name: ~_mask(rows, hospital) for (name, rows), hospital in zip(forgotten.items(), hospitals, strict=True)}
    settings = question.settings.replace(guarantee=guarantee.value, seed=seed)
    everything = {hospital.name: _train_records(hospital) for hospital in hospitals}
    retained = {h.name: h.given.select(np.flatnonzero(kept[h.name] & _is_train(h))) for h in hospitals}
    shape = choose_shape(settings)

    def ask(records: Mapping[str, Encoded], asked: Settings) -> _Answer:
        start = time.perf_counter()
        learned = learn(records, asked, shape)
        seconds = time.perf_counter() - start
        places = {h.name: _after_deletion(h, records[h.name], learned, kept[h.name], asked) for h in hospitals}
        left = Learned(learned.model, {name: place.bank for name, place in places.items()})
        answers = MunkeyAnswers(left.model, places, asked)
        return _Answer(left, measure(answers, hospitals, forgotten, forgotten), seconds)

    mine, oracle = ask(everything, settings), ask(retained, settings)
    other = ask(retained, settings.replace(seed=(seed + _OTHER_SEED) % 2**31))
    noisy = guarantee is Guarantee.CERTIFIED
    quiet = ask(everything, settings.replace(epsilon=math.inf)) if noisy else None
    size = sum(weight.numel() * weight.element_size() for weight in mine.learned.model.state_dict().values())
    return Trial(
        guarantee,
        seed,
        mine.found,
        oracle.found,
        other.found,
        quiet.found.test_accuracy if quiet else math.nan,
        epsilon_of_settings(settings),
        settings.delta if noisy else 0.0,
        _identical(mine.learned, oracle.learned),
        mine.seconds,
        2 * size * question.hospitals * settings.num_rounds,
    )


@dataclass(frozen=True)
class _Answer:
    """A federation after deletion, what it knows, and how long it trained."""

    learned: Learned
    found: Measurement
    seconds: float


def _divide(question: Question, seed: int) -> tuple[list[Hospital], dict[str, NDArray[np.int64]]]:
    """Divide the records among hospitals and draw what is forgotten at each."""
    hospitals = divide(
        question.images, question.hospitals, alpha=question.alpha, permanent=question.permanent, seed=seed
    )
    forgotten = {hospital.name: _draw_forgotten(hospital, question.forget, seed) for hospital in hospitals}
    if not any(map(len, forgotten.values())):
        raise InvalidDeletion(f"{question.forget:.3g} of the records is none at any hospital; forget a larger share")
    return hospitals, forgotten


def _draw_forgotten(hospital: Hospital, share: float, seed: int) -> NDArray[np.int64]:
    """Draw a share of a hospital's training records from those that may be withdrawn; return their positions."""
    train = _is_train(hospital)
    may_go = np.flatnonzero(train & (hospital.given.records.consents == Consent.REVOCABLE.value))
    count = round(share * int(train.sum()))
    if count > len(may_go):
        raise InvalidDeletion(
            f"{count} records of {hospital.name} cannot be forgotten, only {len(may_go)} may be; "
            "forget fewer, or make fewer permanent"
        )
    if count == train.sum():
        raise InvalidDeletion(f"forgetting {count} records leaves {hospital.name} no training record; forget fewer")
    generator = np.random.default_rng(derive_seed(seed, "forget", hospital.name))
    return np.sort(generator.choice(may_go, count, replace=False))


def _is_train(hospital: Hospital) -> NDArray[np.bool_]:
    is_train: NDArray[np.bool_] = hospital.given.records.splits == Split.TRAIN.value
    return is_train


def _mask(rows: NDArray[np.int64], hospital: Hospital) -> NDArray[np.bool_]:
    mask = np.zeros(len(hospital.given.records), dtype=np.bool_)
    mask[rows] = True
    return mask


def _train_records(hospital: Hospital) -> Encoded:
    return hospital.given.select(_is_train(hospital))


def _after_deletion(
    hospital: Hospital, records: Encoded, learned: Learned, kept: NDArray[np.bool_], settings: Settings
) -> HospitalBank:
    """Return a hospital's bank without the forgotten entries."""
    retained = hospital.given.records.record_ids[kept]
    gone = torch.from_numpy(~np.isin(records.records.record_ids, retained))
    return HospitalBank(learned.banks[hospital.name], records.encoding.keys).without(
        gone, Recipe.of(settings).neighbours
    )


def _identical(mine: Learned, its: Learned) -> bool:
    weights = zip(mine.model.state_dict().values(), its.model.state_dict().values(), strict=True)
    if not all(torch.equal(left, right) for left, right in weights):
        return False
    return all(torch.equal(bank.tokens.offsets, its.banks[name].tokens.offsets) for name, bank in mine.banks.items())


def epsilon_of_settings(settings: Settings) -> float:
    """Return a record's privacy loss over all rounds; every site adds the same noise, and a record has one site."""
    if settings.guarantee is Guarantee.EXACT:
        return 0.0
    if settings.guarantee is Guarantee.EMPIRICAL or math.isinf(settings.epsilon):
        return math.inf
    one = noisy_steps_of_round(Recipe.of(settings))
    return epsilon_of(
        [NoisySteps(one.steps * settings.num_rounds, one.sampling_rate, one.noise_multiplier)], settings.delta
    )
