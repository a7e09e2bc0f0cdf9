"""Whole simulations under each guarantee: what its deletions answer is what the shared weights and accounts show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fedmunkey.client.learning.own_memory import read_memory
from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.deletions.words import SiteState
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.model.model_choice import choose_encoder, choose_shape, initial_model
from fedmunkey.common.model.recipe import FEW_STEPS, Recipe
from fedmunkey.common.privacy.accounting import epsilon_of
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import EVENTS, LAST, ROUND
from fedmunkey.simulations.federation import enrolling
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.federated_loop import average_rounds, munkey_site
from fedmunkey.simulations.federation.hospitals import Hospital, bank_of, encode_all, give, open_hospital
from fedmunkey.simulations.federation.partition import partition
from fedmunkey.simulations.federation.solved_federation import SolvedPlace, solve_federation
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.programs.progress import Progress
from fedmunkey.simulations.reporting.document import validate
from fedmunkey.simulations.run import run
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.plan import ResolvedDeletion, parse_plan, resolve
from fedmunkey.simulations.run.run import simulate

if TYPE_CHECKING:
    from flwr.serverapp import Grid

pytestmark = pytest.mark.flower

ROUNDS = 3
SEED = 3
EPSILON, DELTA = 4.0, 1e-4
RECORDS = {Split.TRAIN: 180, Split.VAL: 12, Split.TEST: 30}
EXACT_PLAN = ["records:10%@2", "site:3@3"]
CERTIFIED_PLAN = ["subjects:5@3"]


@dataclass(frozen=True)
class Ran:
    """A simulation that has ended."""

    folder: Path
    report: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / "coordinator" / LAST

    def site(self, number: int) -> SiteFolder:
        return SiteFolder(self.folder / "sites" / f"hospital-{number}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some digits in a file; three records of a split make a subject."""
    digits = load_dataset("digits", data_dir=None, seed=0)
    arrays: dict[str, Any] = {}
    for split, count in RECORDS.items():
        records = digits.split(split).select(np.arange(count))
        arrays |= {f"{split}_images": records.images[:, 0], f"{split}_labels": records.labels[:, None]}
        arrays[f"{split}_subjects"] = np.array([f"{split}-{row // 3}" for row in range(count)])
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def experiment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Experiment]:
    """Return what a simulation under a guarantee is asked to do."""

    def experiment(guarantee: Guarantee, plan: list[str], *, hospitals: int, permanent: float = 0.0) -> Experiment:
        return Experiment(
            data=str(data),
            data_dir=None,
            hospitals=hospitals,
            alpha=math.inf,
            permanent=permanent,
            deletions=plan,
            overrides={
                "guarantee": guarantee.value,
                "epsilon": EPSILON,
                "delta": DELTA,
                "num-rounds": ROUNDS,
                "seed": SEED,
                "image-path": "frozen",
                "exemplar-size": 16,
                "random-features": 50,
            },
            baselines=[],
            output=tmp_path_factory.mktemp("run") / guarantee.value,
            cores=hospitals,
        )

    return experiment


@pytest.fixture(scope="module")
def exact(experiment: Callable[..., Experiment]) -> Ran:
    asked = experiment(Guarantee.EXACT, EXACT_PLAN, hospitals=3, permanent=0.3)
    return Ran(asked.output, simulate(asked, Progress.quiet()))


@pytest.fixture(scope="module")
def certified(experiment: Callable[..., Experiment]) -> Ran:
    asked = experiment(Guarantee.CERTIFIED, CERTIFIED_PLAN, hospitals=2)
    return Ran(asked.output, simulate(asked, Progress.quiet()))


def resolved(dataset: Dataset, plan: list[str], *, hospitals: int) -> ResolvedDeletion:
    """Return the first deletion of a plan with the records that it erases."""
    parts = partition(dataset, hospitals, alpha=math.inf, seed=SEED)
    return resolve(parse_plan(plan, hospitals=hospitals, num_rounds=ROUNDS), parts, SEED)[0]


# Exact.


def test_exact_deletions_answer_exact_whatever_the_consent(exact: Ran) -> None:
    deletions, sentence = exact.report["deletions"], exact.report["headline"]["sentence"]

    assert [one["guarantee"] for one in deletions] == ["exact", "exact"]
    assert deletions[0]["entries"] == round(0.1 * RECORDS[Split.TRAIN])
    assert exact.report["guarantee"]["permanent"] == pytest.approx(0.3, abs=0.02)
    assert sentence == f"A deletion here is exact: {Guarantee.EXACT.remains}."
    validate(exact.report)


def test_weights_of_an_exact_run_are_solved_from_what_its_sites_still_hold(exact: Ran) -> None:
    release = read_release(exact.weights)
    places = {}
    for number in (1, 2, 3):
        with exact.site(number).open() as store:
            places[f"hospital-{number}"] = SolvedPlace.of_store(store, release.feature_map)

    again = solve_federation(places, Settings.parse(exact.report["settings"]), release.feature_map)

    assert again.sites == {"hospital-1", "hospital-2"}
    assert again.release.digest() == release.digest()
    assert release.weights.any()
    # What a deletion is measured with are the weights that the next round gives to the sites.
    at_the_end, last = exact.report["final"]["measurement"], exact.report["deletions"][-1]["after"]
    assert at_the_end["test_accuracy"] == last["test_accuracy"]
    assert at_the_end["own_accuracy"] == last["own_accuracy"]


def test_exact_run_leaves_the_bytes_of_one_in_which_the_records_were_never_enrolled(
    exact: Ran,
    data: Path,
    experiment: Callable[..., Experiment],
    make_grid: Callable[[Settings, int], Grid],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = resolved(donate(load_dataset(str(data), data_dir=None, seed=SEED), 0.3, SEED), EXACT_PLAN, hospitals=3)

    def enrol_others(hospital: Hospital, *rest: Any) -> None:
        rows = gone.rows[int(hospital.name[-1]) - 1]
        kept = np.setdiff1d(np.arange(len(hospital.given.records)), rows)
        open_hospital(replace(hospital, given=hospital.given.select(kept)), *rest)

    monkeypatch.setattr(enrolling, "open_hospital", enrol_others)
    monkeypatch.setattr(run, "_train", in_this_process(make_grid))
    asked = experiment(Guarantee.EXACT, EXACT_PLAN[1:], hospitals=3, permanent=0.3)
    without = Ran(asked.output, simulate(asked, Progress.quiet()))

    assert sum(map(len, gone.rows)) > 0
    assert without.weights.read_bytes() == exact.weights.read_bytes()
    release = read_release(exact.weights)
    for number in (1, 2):
        with exact.site(number).open() as one, without.site(number).open() as other:
            (mine, _), (its, _) = (read_memory(store, release) for store in (one, other))
        assert np.array_equal(mine.tokens, its.tokens)
        assert np.array_equal(mine.weights, its.weights)


def in_this_process(make_grid: Callable[[Settings, int], Grid]) -> Callable[..., list[dict[str, Any]]]:
    """Return what runs a federation without Flower's runtime, which takes longer to start than training does."""

    def train(experiment: Experiment, settings: Settings, progress: Progress) -> list[dict[str, Any]]:
        # Flower takes seconds to import.
        from fedmunkey.server.app import run_federation

        del progress
        run_federation(make_grid(settings, experiment.hospitals), settings)
        events = map(json.loads, (Path(settings.output_dir) / EVENTS).read_text().splitlines())
        return [event for event in events if event["event"] == ROUND]

    return train


# Certified.


def test_sites_have_spent_every_step_and_no_more_than_they_promised(certified: Ran) -> None:
    for number in (1, 2):
        with certified.site(number).open() as store:
            spent = store.privacy.spent()
            assert sum(part.steps for part in spent) == ROUNDS * FEW_STEPS
            assert 0.8 * EPSILON < epsilon_of(spent, DELTA) <= EPSILON
            assert store.privacy.loss().epsilon == pytest.approx(epsilon_of(spent, DELTA))
            reported = certified.report["guarantee"]["privacy_loss"]
            assert reported == {"epsilon": pytest.approx(store.privacy.loss().epsilon), "delta": DELTA, "records": 1}


def test_certified_deletion_answers_with_what_was_spent_by_then(certified: Ran) -> None:
    (done,) = certified.report["deletions"]
    with certified.site(1).open() as store:
        spent = store.privacy.spent()[:2]

    assert done["guarantee"] == Guarantee.CERTIFIED
    assert done["record_loss"]["epsilon"] == pytest.approx(epsilon_of(spent, DELTA))
    assert done["subject_loss"]["records"] == 3
    assert done["subject_loss"]["epsilon"] == pytest.approx(epsilon_of(spent, DELTA, records=3))
    assert done["entries"] == 15
    assert "for 1 record, delta = 0.0001." in certified.report["headline"]["sentence"]


def test_ledger_keeps_the_guarantee_and_loss_of_every_answer(certified: Ran) -> None:
    with Ledger(certified.folder / "ledger.sqlite") as ledger:
        statuses = ledger.page(size=100).statuses

    answers = [site.acknowledgement for status in statuses for site in status.sites]
    assert len(statuses) == 5
    assert {answer.guarantee for answer in answers if answer} == {Guarantee.CERTIFIED}
    erased = [answer for answer in answers if answer and answer.state is SiteState.ERASED]
    assert len(erased) == 5
    assert all(answer.record_loss and answer.subject_loss for answer in erased)


def test_certified_run_gives_the_weights_of_the_loop(certified: Ran, data: Path) -> None:
    settings = Settings.parse(certified.report["settings"])
    shape = choose_shape(settings)
    dataset = load_dataset(str(data), data_dir=None, seed=SEED)
    sites = list(sites_that_forget(dataset, settings, resolved(dataset, CERTIFIED_PLAN, hospitals=2)))

    model = average_rounds(initial_model(shape, SEED), sites, ROUNDS)

    real = read_checkpoint(certified.weights).weights
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, real[name], atol=1e-4), name
    assert (real["linear.weight"] - initial_model(shape, SEED).linear.weight).abs().max() > 1e-2


def sites_that_forget(
    dataset: Dataset, settings: Settings, deletion: ResolvedDeletion
) -> Iterator[Callable[[Any, int], int]]:
    """Yield the local training of two sites, which leave the forgotten records out from the round of their deletion."""
    shape = choose_shape(settings)
    everything = encode_all(choose_encoder(settings), dataset)
    parts = partition(dataset, 2, alpha=math.inf, seed=SEED)
    for hospital, gone in zip(give(everything, parts, Path()), deletion.rows, strict=True):
        train = np.flatnonzero(hospital.given.records.splits == Split.TRAIN.value)
        before, after = (
            munkey_site(hospital.name, bank_of(hospital.given.select(rows), settings, shape), Recipe.of(settings))
            for rows in (train, np.setdiff1d(train, gone))
        )

        def site(model: Any, number: int, before: Any = before, after: Any = after) -> int:
            count: int = (before if number < deletion.planned.round else after)(model, number)
            return count

        yield site


def test_consents_of_a_certified_run_are_as_the_data_have_them(certified: Ran) -> None:
    with certified.site(1).open() as store:
        assert store.records.count_consents().keys() == {Consent.REVOCABLE}
