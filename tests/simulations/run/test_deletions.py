"""The plan of deletions, carried out over gRPC against hospitals with agents and key stores of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import (
    OFFICER,
    Acknowledgement,
    DeletionRequest,
    Records,
    RequestState,
    SiteState,
    Subject,
    WholeSite,
)
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import initial_model
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import LAST
from fedmunkey.simulations.federation.answers import MunkeyAnswers
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.federation.measurement import Measurement, measure
from fedmunkey.simulations.run import agents as agents_of_hospitals
from fedmunkey.simulations.run import deletions
from fedmunkey.simulations.run.agents import running_agents
from fedmunkey.simulations.run.deletions import CarriedOut, DeletionDriver
from fedmunkey.simulations.run.plan import parse_plan, resolve

MakeDriver = Callable[..., DeletionDriver]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in (1, 2, 3):
            ledger.register(f"hospital-{number}")
        yield ledger


@pytest.fixture
def service(ledger: Ledger) -> LedgerService:
    return LedgerService(ledger)


@pytest.fixture
def served(service: LedgerService, settings: Settings) -> Iterator[Settings]:
    with DeletionServer(service) as server:
        yield settings.replace(deletion_service=server.address)


@pytest.fixture
def agents(open_hospitals: list[Hospital], served: Settings) -> Iterator[None]:
    with running_agents(open_hospitals, served):
        yield


@pytest.fixture
def make_driver(
    open_hospitals: list[Hospital], served: Settings, shape: ModelShape, secret: FederationSecret
) -> MakeDriver:
    def make(*plan: str, on_deletion: Callable[[CarriedOut], None] | None = None) -> DeletionDriver:
        first, given = initial_model(shape, served.seed), [h.given.records for h in open_hospitals]
        resolved = resolve(parse_plan(plan, hospitals=3, num_rounds=3), given, seed=0)
        return DeletionDriver(resolved, open_hospitals, served, secret, first, on_deletion=on_deletion)

    return make


def train_ids(hospital: Hospital) -> list[str]:
    return [str(record) for record in hospital.given.split(Split.TRAIN).records.record_ids]


def held(hospital: Hospital, secret: FederationSecret) -> set[bytes]:
    """Return references of the given training records that the key store still holds."""
    with hospital.folder.open() as store:
        return {held for held in map(secret.reference, train_ids(hospital)) if store.records.holds(held)}


@pytest.mark.usefixtures("agents")
def test_records_are_asked_for_by_their_own_hospital_and_are_gone(
    make_driver: MakeDriver, open_hospitals: list[Hospital], secret: FederationSecret
) -> None:
    driver = make_driver("records:30%@1")

    driver.open_round(1)

    (done,) = driver.done
    asking = [h for h, rows in zip(open_hospitals, done.deletion.rows, strict=True) if len(rows)]
    assert [status.request.requester for status in done.statuses] == [hospital.name for hospital in asking]
    for hospital, status in zip(asking, done.statuses, strict=True):
        rows = done.deletion.rows[open_hospitals.index(hospital)]
        references = {secret.reference(str(record)) for record in hospital.given.records.record_ids[rows]}
        assert status.request.target == Records(frozenset(references), hospital.name)
        assert [progress.site for progress in status.sites] == [hospital.name]
        assert held(hospital, secret).isdisjoint(references)
        assert len(held(hospital, secret)) == len(train_ids(hospital)) - len(references)
    assert {status.state for status in done.statuses} == {RequestState.COMPLETED}
    assert done.entries == done.records == sum(done.deletion.expected) == 18
    assert len(done.seconds) == len(done.statuses)
    assert all(0 < site <= request < 60 for site, request in zip(done.site_seconds, done.seconds, strict=True))


@pytest.mark.usefixtures("agents")
def test_subjects_are_asked_for_by_the_data_protection_officer_at_every_hospital(
    make_driver: MakeDriver, secret: FederationSecret
) -> None:
    driver = make_driver("subjects:4@1")

    driver.open_round(1)

    (done,) = driver.done
    assert [status.request.target for status in done.statuses] == [
        Subject(secret.reference(subject)) for subject in done.deletion.subjects
    ]
    for status in done.statuses:
        assert status.request.requester == OFFICER
        assert [progress.site for progress in status.sites] == ["hospital-1", "hospital-2", "hospital-3"]
        answers = sorted(progress.state.value for progress in status.sites)
        assert answers == ["erased", "nothing-held", "nothing-held"]
    assert done.entries == sum(done.deletion.expected) == 8


@pytest.mark.usefixtures("agents")
def test_site_asks_for_itself_and_holds_nothing_afterwards(
    make_driver: MakeDriver, open_hospitals: list[Hospital], secret: FederationSecret
) -> None:
    driver = make_driver("site:2@1")

    driver.open_round(1)

    (done,) = driver.done
    (status,) = done.statuses
    assert (status.request.requester, status.request.target) == ("hospital-2", WholeSite("hospital-2"))
    with open_hospitals[1].folder.open() as store:
        assert [store.records.count(split) for split in Split] == [0, 0, 0]
    assert done.entries == len(train_ids(open_hospitals[1]))
    assert done.records == len(open_hospitals[1].given.records)
    assert len(held(open_hospitals[0], secret)) == len(train_ids(open_hospitals[0]))


@pytest.mark.usefixtures("agents")
def test_deletions_come_with_their_round_and_once_and_are_made_up_for(make_driver: MakeDriver, ledger: Ledger) -> None:
    told: list[CarriedOut] = []
    driver = make_driver("records:2@1", "records:2@2", "subjects:1@2", "records:1@3", on_deletion=told.append)

    # Round 1 was not announced.
    driver.open_round(2)
    done, requests = list(driver.done), len(ledger.page().statuses)
    driver.open_round(2)

    assert [str(done.deletion.planned) for done in done] == ["records:2@1", "records:2@2", "subjects:1@2"]
    assert len(ledger.page().statuses) == requests
    assert told == driver.done == done
    driver.open_round(3)
    assert len(driver.done) == 4


@pytest.mark.usefixtures("agents")
def test_same_model_is_measured_with_the_banks_before_and_after(
    make_driver: MakeDriver, served: Settings, shape: ModelShape
) -> None:
    driver = make_driver("records:30%@1", "subjects:2@1")

    driver.open_round(1)

    records, subjects = driver.done
    for done in driver.done:
        assert len(done.before.forget_confidence) == len(done.after.forget_confidence) == sum(done.deletion.expected)
    # What the second deletion finds is what the first one left: same weights, same banks.
    assert subjects.before.test_accuracy == records.after.test_accuracy
    # Without its own entry to read, a record's prediction is another one.
    assert records.before.forget_confidence != records.after.forget_confidence
    at_the_end = driver.measure_now(initial_model(shape, served.seed))
    assert len(at_the_end.forget_confidence) == records.entries + subjects.entries


@pytest.mark.usefixtures("agents")
def test_first_weights_are_measured_before_the_first_round_and_later_those_of_the_last(
    make_driver: MakeDriver, served: Settings, shape: ModelShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[torch.Tensor] = []

    def note(asked: MunkeyAnswers, *others: Any) -> Measurement:
        measured.append(asked.model.head.weight.detach())
        return measure(asked, *others)

    monkeypatch.setattr(deletions, "measure", note)
    driver = make_driver("records:5@1", "records:5@2")
    first, last = (initial_model(shape, seed) for seed in (served.seed, served.seed + 1))

    driver.open_round(1)
    write_checkpoint(Path(served.output_dir) / LAST, Checkpoint(last.state_dict(), shape, served.encoder, {}))
    driver.open_round(2)

    assert len(measured) == 4
    for found, model in zip(measured, (first, first, last, last), strict=True):
        assert torch.equal(found, model.head.weight)


def test_deletion_that_a_site_refuses_stops_the_federation(
    make_driver: MakeDriver, service: LedgerService, secret: FederationSecret, open_hospitals: list[Hospital]
) -> None:
    driver = make_driver("site:1@1")
    request = DeletionRequest("simulation-1-hospital-1", "hospital-1", WholeSite("hospital-1"))
    (progress,) = service.submit(request).sites
    refusal = ("hospital-1", request.request_id, SiteState.REFUSED, 0, 0)
    service.acknowledge(Acknowledgement(progress.number, *refusal, Guarantee.EMPIRICAL, 0.1, "not trusted"))

    with pytest.raises(FederationStopped, match="deletion request simulation-1-hospital-1 is refused; see the ledger"):
        driver.open_round(1)

    assert driver.done == []
    assert len(held(open_hospitals[0], secret)) == len(train_ids(open_hospitals[0]))


def test_deletion_that_nobody_answers_stops_the_federation(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "_ANSWER_SECONDS", 0.05)

    with pytest.raises(FederationStopped, match="deletion request simulation-1-hospital-3 had no answer"):
        make_driver("site:3@1").open_round(1)


def test_every_hospital_has_an_agent_until_the_end(open_hospitals: list[Hospital], served: Settings) -> None:
    def agents() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("agent-")}

    with running_agents(open_hospitals, served):
        running = agents()

    assert running == {"agent-hospital-1", "agent-hospital-2", "agent-hospital-3"}
    assert agents() == set()


def test_a_few_agents_carry_out_the_orders_of_many_hospitals(
    make_driver: MakeDriver,
    open_hospitals: list[Hospital],
    served: Settings,
    secret: FederationSecret,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agents_of_hospitals, "MOST_FOLLOWING", 2)
    driver = make_driver("subjects:4@1", "site:2@1")
    with running_agents(open_hospitals, served) as hear:
        driver.hear = hear
        driver.open_round(1)

    subjects, site = driver.done
    assert (subjects.entries, site.entries) == tuple(sum(done.deletion.expected) for done in (subjects, site))
    assert held(open_hospitals[1], secret) == set()
    assert {status.state for done in driver.done for status in done.statuses} == {RequestState.COMPLETED}
