"""The report says what was found, in JSON that any program reads and in tables that people read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.words import (
    Acknowledgement,
    DeletionRequest,
    RequestStatus,
    SiteProgress,
    SiteState,
    WholeSite,
)
from fedmunkey.common.privacy.guarantees import Guarantee, PrivacyLoss
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.measurement import Measurement
from fedmunkey.simulations.federation.partition import DivideBy
from fedmunkey.simulations.reporting import run_tables
from fedmunkey.simulations.reporting.document import validate
from fedmunkey.simulations.reporting.markdown import render_markdown
from fedmunkey.simulations.reporting.plain_words import division_words
from fedmunkey.simulations.run.baselines import Baseline, BaselineResult
from fedmunkey.simulations.run.deletions import CarriedOut
from fedmunkey.simulations.run.experiment import Experiment
from fedmunkey.simulations.run.plan import DeletionKind, PlannedDeletion, ResolvedDeletion
from fedmunkey.simulations.run.report import accuracy_table, deletion_table, run_document

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)
BEFORE = Measurement(90, 95, 100, 70, 88, (0.9, 0.8))
AFTER = Measurement(90, 94, 50, 55, 88, (0.5, 0.4))
FINAL = Measurement(91, 96, 50, 52, 89, (0.5, 0.4), own_accuracy=90.5)
DELTA = 2e-5
ORACLE = Measurement(93, 97, 60, 50, 92, (0.4, 0.3), own_accuracy=94)


def carried_out(*seconds: float) -> CarriedOut:
    """Return a deletion of hospital 2, in as many requests as there are times."""
    return deletion(*(status(answer(Guarantee.EMPIRICAL, seconds=each / 2), seconds=each) for each in seconds))


def deletion(*statuses: RequestStatus, hospital: int = 2) -> CarriedOut:
    planned = PlannedDeletion(DeletionKind.SITE, 2, hospital=hospital)
    rows = tuple(np.arange(count) for count in (0, 2, 0))
    return CarriedOut(ResolvedDeletion(planned, rows), statuses, BEFORE, AFTER)


def answer(guarantee: Guarantee, *, seconds: float = 0.1, **losses: PrivacyLoss | None) -> Acknowledgement:
    who = 1, "hospital-2", "simulation-1", SiteState.ERASED
    return Acknowledgement(*who, 3, 2, guarantee, seconds, **losses)  # type: ignore[arg-type]


def answered(guarantee: Guarantee, hospital: int = 2) -> CarriedOut:
    """Return a deletion in one request, which one site has answered under a guarantee."""
    return deletion(status(answer(guarantee)), hospital=hospital)


def certified(epsilon: float, records: int = 1) -> Acknowledgement:
    """Return a site's answer that bounds one record by epsilon, and so many of a subject by so many times that."""
    losses = PrivacyLoss(epsilon, DELTA), PrivacyLoss(records * epsilon, DELTA, records)
    return answer(Guarantee.CERTIFIED, record_loss=losses[0], subject_loss=losses[1])


def status(*answers: Acknowledgement, seconds: float = 0.1) -> RequestStatus:
    request = DeletionRequest("simulation-1", "hospital-2", WholeSite("hospital-2"))
    at = NOON + timedelta(seconds=seconds)
    return RequestStatus(request, NOON, tuple(SiteProgress(one.site, 1, one.state, one, at) for one in answers))


def round_event(number: int, accuracy: float | None = 0.5, training: dict[str, Any] | None = None) -> dict[str, Any]:
    evaluation = {
        "hospital-1": {"test-accuracy": accuracy, "test-own-accuracy": 0.8},
        "hospital-2": {"test-accuracy": None, "test-own-accuracy": None},
    }
    mean = {} if accuracy is None else {"test-accuracy": accuracy, "test-macro-f1": accuracy / 2}
    return {
        "event": "round",
        "number": number,
        "training": training or {},
        "evaluation": evaluation,
        "failures": {},
        "mean": mean,
        "bytes_down": 40,
        "bytes_up": 20,
        "release_seconds": 1.5 * number,
    }


@pytest.fixture
def found(hospitals: list[Hospital], settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """What the parts of a simulation found."""
    experiment = Experiment("digits", None, 3, math.inf, 0.3, ["site:2@2"], {}, [Baseline.ORACLE], tmp_path, 2)
    oracle = BaselineResult(Baseline.ORACLE, 30.0, 93, 94, 92, {}, {}, ORACLE)
    neighbours = BaselineResult(Baseline.NEIGHBOURS, 0.5, 80, 85, 79, {"hospital-1": 80.0}, {"hospital-1": 85.0})
    return {
        "experiment": experiment,
        "settings": settings,
        "hospitals": hospitals,
        "rounds": [round_event(1, 0.25), round_event(2, 0.75)],
        "deletions": [carried_out(0.02, 0.01, 0.06)],
        "final": FINAL,
        "baselines": {Baseline.ORACLE: oracle, Baseline.NEIGHBOURS: neighbours},
        "preparation_seconds": 1.5,
        "training_seconds": 20.0,
    }


def text(table: Table) -> list[str]:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def row(lines: list[str], beginning: str) -> list[str]:
    line = next(line for line in lines if beginning in line)
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_document_follows_the_schema(found: dict[str, Any]) -> None:
    document = run_document(**found)

    validate(document)
    assert document["confidence"] == {"before": [0.8, 0.9], "after": [0.4, 0.5], "oracle": [0.3, 0.4], "test": []}
    # The concentration of the split is infinite, which JSON has no word for.
    assert document["alpha"] is None


def from_source(hospital: Hospital, source: str) -> Hospital:
    records = hospital.given.records
    records = dataclasses.replace(records, sources=np.full(len(records), source))
    return dataclasses.replace(hospital, given=dataclasses.replace(hospital.given, records=records))


def test_report_says_how_hospitals_were_divided_and_which_scanner_each_has(found: dict[str, Any]) -> None:
    hospitals = [from_source(hospital, f"ward-{place}") for place, hospital in enumerate(found["hospitals"])]
    experiment = dataclasses.replace(found["experiment"], alpha=1.0, divide_by=DivideBy.SOURCES, feature_shift=0.5)

    document = run_document(**{**found, "experiment": experiment, "hospitals": hospitals})
    plain = run_document(**found)

    validate(document)
    assert document["division"] == {"by": "sources", "feature_shift": 0.5}
    assert division_words(document) == "divided by source, feature shift 0.5"
    assert division_words(plain) == "alpha = inf"
    assert run_tables.hospital_headings(document)[-2:] == ("sources", "scanner (gain, offset, blur)")
    rows = run_tables.hospital_rows(document)
    assert [row[-2] for row in rows] == [f"ward-{number}" for number in range(len(hospitals))]
    assert len({row[-1] for row in rows}) == len(hospitals)
    assert run_tables.hospital_headings(plain) == run_tables.HOSPITALS
    assert render_markdown(document).count("ward-") == len(hospitals)


@pytest.mark.parametrize("changes", [{}, {"guarantee": "certified", "epsilon": math.inf}])
def test_run_can_be_repeated_from_the_document(
    found: dict[str, Any], settings: Settings, changes: dict[str, Any]
) -> None:
    asked = settings.replace(**changes)

    document = json.loads(json.dumps(run_document(**{**found, "settings": asked}), allow_nan=False))

    assert Settings.parse(document["settings"]) == asked
    assert (document["seed"], document["data"], document["command"]) == (settings.seed, "digits", "munkey-sim run")
    assert {"python", "torch", "flwr", "numpy"} <= document["versions"].keys()
    assert document["machine"]["cores"] >= 1


def test_hospitals_are_described_by_numbers_only(found: dict[str, Any], hospitals: list[Hospital]) -> None:
    report = run_document(**found)

    for described, hospital in zip(report["hospitals"], hospitals, strict=True):
        train = hospital.given.split(Split.TRAIN).records
        assert described["name"] == hospital.name
        assert described["records"] == {"train": len(train), "val": 6, "test": 20}
        assert described["subjects"] == len(set(train.subject_ids))
        assert sum(described["classes"].values()) == len(train)
    text = json.dumps(report)
    assert not any(str(record) in text for record in hospitals[0].given.records.record_ids)
    assert "subject-1" not in text


def test_deletion_is_compared_with_retraining_and_final_figures_are_those_of_the_last_round(
    found: dict[str, Any],
) -> None:
    document = run_document(**found)

    (deletion,) = document["deletions"]
    assert deletion["plan"] == "site:2@2"
    assert (deletion["round"], deletion["requests"], deletion["expected"]) == (2, 3, [0, 2, 0])
    # Each of the three answers says 3 records, 2 of them entries.
    assert (deletion["records"], deletion["entries"]) == (9, 6)
    assert deletion["seconds"] == pytest.approx(
        {"site": 0.01, "request": 0.02, "slowest_request": 0.06, "renewed": 3.0}
    )
    assert deletion["times_faster"] == pytest.approx({"site": 30.0 / 0.01, "request": 30.0 / 0.02})
    assert (deletion["before"]["forget_accuracy"], deletion["after"]["forget_accuracy"]) == (100, 50)
    assert "forget_confidence" not in deletion["before"]
    final = document["final"]
    assert (final["test_accuracy"], final["test_macro_f1"]) == (75, 37.5)
    assert final["per_hospital"] == {"hospital-1": 75, "hospital-2": None}
    assert final["own_per_hospital"] == {"hospital-1": 80, "hospital-2": None}
    assert final["average_gap"] == pytest.approx((2 + 1 + 10 + 2) / 4)
    assert document["bytes"] == {"weights_down": 80, "weights_up": 40}
    assert document["seconds"] == {"preparation": 1.5, "training": 20.0}


def test_without_an_oracle_nothing_is_compared_with_it(found: dict[str, Any]) -> None:
    report = run_document(**{**found, "baselines": {}})

    lines = text(deletion_table(report))
    assert report["final"]["average_gap"] is report["deletions"][0]["times_faster"] is None
    assert row(lines, "site:2@2")[4] == "–"
    assert not any("oracle" in line for line in lines)


def test_last_round_that_no_site_evaluated_leaves_a_gap(found: dict[str, Any]) -> None:
    report = run_document(**{**found, "rounds": [round_event(1), round_event(2, None)]})

    assert report["final"]["test_accuracy"] is None
    assert row(text(accuracy_table(report)), "MUNKEY, federated") == ["MUNKEY, federated", "–", "90.5", "–", "20.0"]


def test_accuracy_table_has_the_federation_and_every_baseline(found: dict[str, Any]) -> None:
    lines = text(accuracy_table(run_document(**found)))
    results = {name: BaselineResult(name, 1.0, 50, 50, 50, {}, {}, None) for name in Baseline}
    every = text(accuracy_table(run_document(**{**found, "baselines": results, "deletions": []})))

    assert row(lines, "MUNKEY, federated")[1:] == ["75.0", "90.5", "37.5", "20.0"]
    assert row(lines, "(oracle)")[1:] == ["93.0", "94.0", "92.0", "30.0"]
    assert row(lines, "nearest neighbours")[1:] == ["80.0", "85.0", "79.0", "0.5"]
    assert len([line for line in every if "50.0" in line]) == len(Baseline)


def test_deletion_table_shows_before_after_and_oracle(found: dict[str, Any]) -> None:
    lines = text(deletion_table(run_document(**found)))

    assert "Deletions (empirical)" in lines[0]
    assert row(lines, "site:2@2") == [
        "site:2@2", "empirical", "6", "10 ms at a site", "3,000x", "before", "90.0", "95.0", "100.0", "70.0"
    ]  # fmt: skip
    assert any("20 ms in all" in line and "1,500x" in line for line in lines)
    after, at_the_end = (row([line], "after")[-5:] for line in lines if "after" in line)
    assert after == ["after", "90.0", "94.0", "50.0", "55.0"]
    assert at_the_end == ["after", "91.0", "96.0", "50.0", "52.0"]
    assert row(lines, "oracle")[-5:] == ["oracle", "93.0", "97.0", "60.0", "50.0"]


def test_measure_that_does_not_exist_is_null_and_a_dash(found: dict[str, Any]) -> None:
    nothing = dataclasses.replace(FINAL, forget_accuracy=math.nan, membership=math.nan)

    report = run_document(**{**found, "final": nothing})

    assert report["final"]["measurement"]["forget_accuracy"] is None
    assert report["final"]["average_gap"] is None
    assert row(text(deletion_table(report)), "all, at the end")[-2:] == ["–", "–"]


# What may be claimed of the deletions.


@pytest.fixture
def collect(found: dict[str, Any], settings: Settings) -> Callable[..., dict[str, Any]]:
    """Put together the report of a federation with a guarantee and some deletions."""

    def collect(guarantee: Guarantee, *deletions: CarriedOut, **changes: Any) -> dict[str, Any]:
        promised = settings.replace(guarantee=guarantee.value, delta=DELTA)
        return run_document(**{**found, "settings": promised, "deletions": deletions, **changes})

    return collect


@pytest.mark.parametrize("guarantee", [Guarantee.EXACT, Guarantee.EMPIRICAL])
def test_report_says_what_the_guarantee_means_and_names_the_share_of_permanent_records(
    collect: Callable[..., dict[str, Any]], hospitals: list[Hospital], guarantee: Guarantee
) -> None:
    donated = [
        dataclasses.replace(each, given=Encoded(donate(each.given.records, 0.5, seed=0), each.given.encoding))
        for each in hospitals
    ]

    report = collect(guarantee, answered(guarantee), hospitals=donated)

    found = report["guarantee"]
    assert found.pop("permanent") == pytest.approx(0.5, abs=0.05)
    assert found == {"name": guarantee.value, "remains": guarantee.remains, "privacy_loss": None}
    assert report["headline"]["sentence"] == f"A deletion here is {guarantee}: {guarantee.remains}."
    assert deletion_table(report).title == f"Deletions ({guarantee})"


@pytest.mark.parametrize(
    ("told", "largest"),
    [([{"hospital-1": 1.0, "hospital-2": 2.5}, {"hospital-1": 2.0}], 2.5), ([{"hospital-1": 1.0}, {"x": None}], None)],
)
def test_privacy_loss_is_the_largest_that_any_site_reports_and_null_without_a_bound(
    collect: Callable[..., dict[str, Any]], told: list[dict[str, float | None]], largest: float | None
) -> None:
    rounds = [
        round_event(number, 0.5, {name: {"epsilon": epsilon, "delta": DELTA} for name, epsilon in sites.items()})
        for number, sites in enumerate(told, start=1)
    ]

    document = collect(Guarantee.CERTIFIED, rounds=rounds)

    assert document["guarantee"]["privacy_loss"] == {"epsilon": largest, "delta": DELTA, "records": 1}


def test_deletion_names_the_weakest_guarantee_of_its_answers(collect: Callable[..., dict[str, Any]]) -> None:
    mixed = deletion(status(answer(Guarantee.EXACT)), status(answer(Guarantee.EXACT), answer(Guarantee.EMPIRICAL)))

    described = collect(Guarantee.EXACT, mixed, answered(Guarantee.EXACT))["deletions"]

    assert [one["guarantee"] for one in described] == ["empirical", "exact"]
    assert {one["record_loss"] for one in described} == {one["subject_loss"] for one in described} == {None}


def test_certified_deletion_has_the_largest_loss_of_a_record_and_the_combined_loss_of_a_subject(
    collect: Callable[..., dict[str, Any]],
) -> None:
    # A subject whom two sites have forgotten: their losses add up. Another whom one site had with three records.
    two_sites, one_site = status(certified(1.5), certified(1.25, 2)), status(certified(1.0, 3))

    (described,) = collect(Guarantee.CERTIFIED, deletion(two_sites, one_site))["deletions"]

    assert described["guarantee"] == "certified"
    assert described["record_loss"] == {"epsilon": 1.5, "delta": DELTA, "records": 1}
    assert described["subject_loss"] == {"epsilon": 4.0, "delta": 2 * DELTA, "records": 3}


def test_loss_without_a_bound_is_null_and_one_weaker_answer_leaves_none_to_claim(
    collect: Callable[..., dict[str, Any]],
) -> None:
    unbounded = collect(Guarantee.CERTIFIED, deletion(status(certified(math.inf))))
    mixed = collect(Guarantee.CERTIFIED, deletion(status(certified(1.5)), status(answer(Guarantee.EMPIRICAL))))

    assert unbounded["deletions"][0]["record_loss"] == {"epsilon": None, "delta": DELTA, "records": 1}
    assert ", epsilon = unbounded for 1 record" in unbounded["headline"]["sentence"]
    assert mixed["deletions"][0]["record_loss"] is None
    assert mixed["headline"]["sentence"] == f"A deletion here is empirical: {Guarantee.EMPIRICAL.remains}."


def test_closing_line_and_title_of_certified_deletions_have_the_largest_epsilon_rounded_up(
    collect: Callable[..., dict[str, Any]],
) -> None:
    report = collect(Guarantee.CERTIFIED, *(deletion(status(certified(each))) for each in (1.0, 2.901, 2.0)))

    bound = "epsilon = 2.91 for 1 record, delta = 2e-05"
    sentence = f"A deletion here is certified: at most what (epsilon, delta) allows, {bound}."
    assert report["headline"]["sentence"] == sentence
    assert deletion_table(report).title == f"Deletions (certified, {bound})"


def test_deletion_with_a_weaker_guarantee_than_the_others_is_named(collect: Callable[..., dict[str, Any]]) -> None:
    report = collect(Guarantee.EXACT, answered(Guarantee.EXACT, 1), answered(Guarantee.EMPIRICAL, 3))

    first, second = report["headline"]["sentence"].split(" But ")
    assert first == f"A deletion here is exact: {Guarantee.EXACT.remains}."
    assert second == f"site:3@2 is empirical: {Guarantee.EMPIRICAL.remains}."
    assert deletion_table(report).title == "Deletions (exact; site:3@2 empirical)"
    _, *lines = text(deletion_table(report))
    assert [row(lines, plan)[1] for plan in ("site:1@2", "site:3@2")] == ["exact", "empirical"]


@pytest.mark.parametrize(("records", "subject"), [(1, ""), (2, ", 3.01 for 2 records")])
def test_deletion_table_shows_the_loss_of_a_record_and_of_a_subject_that_had_more(
    collect: Callable[..., dict[str, Any]], records: int, subject: str
) -> None:
    lines = text(deletion_table(collect(Guarantee.CERTIFIED, deletion(status(certified(1.501, records))))))

    assert row(lines, "site:2@2")[1] == "certified"
    assert row(lines, "in all")[0] == f"epsilon 1.51 for 1 record{subject}"


@pytest.mark.parametrize(("seconds", "told"), [((0.25,), "1 request, 2"), ((0.25, 0.125), "2 requests, 4")])
def test_deletion_is_told_in_one_line(seconds: tuple[float, ...], told: str) -> None:
    line = f"before round 2: site:2@2 over gRPC: {told} entries gone in {max(seconds):.2f} s (empirical)"

    assert carried_out(*seconds).summary == line
    assert deletion().summary.endswith("0 entries gone in 0.00 s")
