"""Each guarantee on a small federation: what it claims of a deletion is what the comparison with the oracle finds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmunkey.client.dataset import Consent, Split
from fedmunkey.client.exemplar_tokens import own_tokens
from fedmunkey.common.encoders import Encoding
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.guarantees import Guarantee
from fedmunkey.common.model_choice import choose_shape, initial_model
from fedmunkey.common.settings import Settings
from fedmunkey.simulations import guarantees
from fedmunkey.simulations.consent import donate
from fedmunkey.simulations.federated_loop import Learned, learn
from fedmunkey.simulations.guarantees import Question, Trial, attempt, compare
from fedmunkey.simulations.hospitals import Encoded

EPSILON, DELTA = 5.0, 1e-3
Learn = Callable[..., Learned]


@pytest.fixture
def question(everything: Encoded, settings: Settings) -> Question:
    quick = settings.replace(image_path="frozen", depth=0, epsilon=EPSILON, delta=DELTA, fewest_permanent=10)
    return Question(everything, quick, hospitals=2, alpha=math.inf, permanent=0.5, forget=0.2)


@pytest.fixture
def tried(question: Question) -> Callable[[Guarantee], Trial]:
    return lambda guarantee: attempt(question, guarantee, 3)


def test_exact_deletion_leaves_the_bytes_of_the_oracle(tried: Callable[[Guarantee], Trial]) -> None:
    trial = tried(Guarantee.EXACT)

    assert trial.identical
    assert (trial.epsilon, trial.delta, trial.gap) == (0, 0, 0)
    assert trial.forgotten == trial.oracle
    assert math.isnan(trial.without_noise)
    # The second oracle made other random choices, or "by chance" would say nothing.
    assert trial.other_oracle.forget_confidence != trial.oracle.forget_confidence


def test_certified_deletion_spends_what_was_asked_and_says_what_noise_costs(
    tried: Callable[[Guarantee], Trial],
) -> None:
    trial = tried(Guarantee.CERTIFIED)

    assert 0.8 * EPSILON < trial.epsilon <= EPSILON
    assert trial.delta == DELTA
    assert not trial.identical
    assert 0 <= trial.without_noise <= 100


def test_empirical_deletion_has_no_bound(tried: Callable[[Guarantee], Trial]) -> None:
    trial = tried(Guarantee.EMPIRICAL)

    assert trial.epsilon == math.inf
    assert not trial.identical
    assert math.isnan(trial.without_noise)


@pytest.mark.parametrize("guarantee", Guarantee)
def test_trial_measures_the_forgotten_and_what_it_cost(
    tried: Callable[[Guarantee], Trial], question: Question, guarantee: Guarantee
) -> None:
    trial = tried(guarantee)

    assert (trial.guarantee, trial.seed) == (guarantee, 3)
    for found in (trial.forgotten, trial.oracle, trial.other_oracle):
        assert len(found.forget_confidence) == 12
        assert all(0 <= figure <= 100 for figure in found.four)
    assert trial.seconds > 0
    weights = initial_model(choose_shape(question.settings), 0).state_dict().values()
    assert trial.bytes_sent == 2 * 2 * question.settings.num_rounds * sum(weight.nbytes for weight in weights)


def test_same_seed_gives_the_same_trial_and_another_seed_forgets_others(question: Question) -> None:
    first, same, other = (replace(attempt(question, Guarantee.CERTIFIED, seed), seconds=0.0) for seed in (0, 0, 1))

    assert first == replace(same, without_noise=first.without_noise)
    assert first.forgotten.forget_confidence != other.forgotten.forget_confidence


def test_only_records_that_may_be_withdrawn_are_forgotten(question: Question) -> None:
    hospitals, forgotten = guarantees._divide(question, 0)

    for hospital in hospitals:
        records = hospital.given.records
        train = records.splits == Split.TRAIN.value
        rows = forgotten[hospital.name]
        assert len(rows) == round(0.2 * train.sum())
        assert set(records.consents[rows]) == {Consent.REVOCABLE.value}
        assert set(records.splits[rows]) == {Split.TRAIN.value}
    shares = [
        float(np.mean(hospital.given.split(Split.TRAIN).records.consents == "permanent")) for hospital in hospitals
    ]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"forget": 0.6}, "cannot be forgotten, only"),
        ({"forget": 0.001}, "0.001 of the records is none at any hospital; forget a larger share"),
        ({"forget": 1.0, "permanent": 0.0}, "leaves hospital-1 no training record; forget fewer"),
        ({"permanent": 1.0}, "make fewer permanent"),
    ],
)
def test_forget_share_that_cannot_be_drawn_is_refused_before_any_process_starts(
    question: Question, change: dict[str, float], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarantees, "worker_processes", None)

    with pytest.raises(InvalidDeletion, match=reason) as caught:
        compare(replace(question, **change), list(Guarantee), [0], processes=1)  # type: ignore[arg-type]

    assert "\n" not in str(caught.value)


@pytest.mark.processes
def test_trials_run_in_other_processes_and_come_back_in_order(question: Question) -> None:
    done: list[Trial] = []
    asked = [Guarantee.EXACT, Guarantee.EMPIRICAL]

    trials = compare(question, asked, [1, 0], processes=1, done=done.append)

    assert [(trial.guarantee, trial.seed) for trial in trials] == [(one, seed) for one in asked for seed in (1, 0)]
    assert sorted(done, key=trials.index) == trials
    here = attempt(question, Guarantee.EXACT, 0)
    assert trials[1].forgotten.forget_confidence == pytest.approx(here.forgotten.forget_confidence, abs=1e-5)


# Learning along the way of gradients that the guarantee allows.


@pytest.fixture
def sites(question: Question) -> dict[str, Encoded]:
    """Two sites' training records, half of them permanent."""
    donated = donate(question.images.records, 0.5, seed=0)
    train = replace(question.images, records=donated).split(Split.TRAIN)
    return {"hospital-1": train.select(np.arange(0, 30)), "hospital-2": train.select(np.arange(30, 60))}


@pytest.fixture
def learned(question: Question) -> Learn:
    def learned(sites: dict[str, Encoded], guarantee: Guarantee, **changes: object) -> Learned:
        settings = question.settings.replace(guarantee=guarantee.value, **changes)
        return learn(sites, settings, choose_shape(settings))

    return learned


def spoil(sites: dict[str, Encoded], consent: Consent) -> dict[str, Encoded]:
    """Give some records another label, another key and other features."""

    def spoiled(some: Encoded) -> Encoded:
        chosen = torch.from_numpy(some.records.consents == consent.value)
        labels = np.where(chosen.numpy(), (some.records.labels + 5) % 10, some.records.labels)
        keys, features = some.encoding.keys.clone(), some.encoding.features.clone()
        keys[chosen], features[chosen] = keys[chosen].flip(1), features[chosen].flip(-1)
        return Encoded(replace(some.records, labels=labels), Encoding(keys, features))

    return {name: spoiled(some) for name, some in sites.items()}


def weights(found: Learned) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in found.model.state_dict().values()])


def test_under_exact_revocable_records_move_nothing_but_their_own_tokens(
    sites: dict[str, Encoded], learned: Learn
) -> None:
    clean, spoiled, others = (
        learned(some, Guarantee.EXACT)
        for some in (sites, spoil(sites, Consent.REVOCABLE), spoil(sites, Consent.PERMANENT))
    )

    assert torch.equal(weights(clean), weights(spoiled))
    for name, bank in clean.banks.items():
        kept = bank.permanent
        assert torch.equal(bank.tokens.offsets[kept], spoiled.banks[name].tokens.offsets[kept])
        assert not torch.equal(bank.tokens.offsets[~kept], spoiled.banks[name].tokens.offsets[~kept])
    # The same in records that do train the shared weights changes them.
    assert not torch.equal(weights(clean), weights(others))


@pytest.mark.parametrize(("fewest", "trained"), [(30, True), (31, False)])
def test_with_too_few_permanent_records_the_shared_weights_stay_as_they_began(
    sites: dict[str, Encoded], learned: Learn, question: Question, fewest: int, trained: bool
) -> None:
    found = learned(sites, Guarantee.EXACT, fewest_permanent=fewest)

    first = initial_model(choose_shape(question.settings), question.settings.seed).state_dict()
    same = all(torch.equal(weight, first[name]) for name, weight in found.model.state_dict().items())
    assert same is not trained


@pytest.mark.parametrize("guarantee", Guarantee)
def test_every_entry_has_a_token_that_fits_the_shared_weights(
    sites: dict[str, Encoded], learned: Learn, guarantee: Guarantee
) -> None:
    found = learned(sites, guarantee)

    for name, bank in found.banks.items():
        assert len(bank) == len(sites[name].records)
        assert torch.equal(bank.tokens.offsets, own_tokens(found.model, bank.inputs).offsets)


def test_noise_is_the_same_for_the_same_seed_only(sites: dict[str, Encoded], learned: Learn) -> None:
    first, same, other = (weights(learned(sites, Guarantee.CERTIFIED, seed=seed)) for seed in (0, 0, 1))

    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_less_privacy_is_less_noise(sites: dict[str, Encoded], learned: Learn) -> None:
    without = weights(learned(sites, Guarantee.CERTIFIED, epsilon=math.inf))

    distances = [
        float((weights(learned(sites, Guarantee.CERTIFIED, epsilon=epsilon)) - without).norm())
        for epsilon in (50.0, 0.5)
    ]

    assert distances[1] > 10 * distances[0] > 0


def test_site_without_records_takes_no_part(sites: dict[str, Encoded], learned: Learn) -> None:
    nobody = {**sites, "hospital-3": sites["hospital-1"].select(np.empty(0, dtype=np.int64))}

    with_it, without = (learned(some, Guarantee.CERTIFIED) for some in (nobody, sites))

    assert torch.equal(weights(with_it), weights(without))
    assert len(with_it.banks["hospital-3"]) == 0
