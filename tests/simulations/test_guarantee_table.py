"""Trials of the guarantees as people and programs read them: intervals, advice, no bound that looks smaller."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fedmunkey.common.guarantees import Guarantee
from fedmunkey.simulations.guarantee_table import TOLERANCE, Findings, Interval
from fedmunkey.simulations.guarantees import Trial
from fedmunkey.simulations.measurement import Measurement

EXACT, CERTIFIED, EMPIRICAL = Guarantee


def trial(guarantee: Guarantee, accuracy: float = 80.0, seed: int = 0, **changes: Any) -> Trial:
    """Return a trial whose Average Gap is 3 points, and 1 point by chance."""
    oracle = Measurement(accuracy + 4, 90, 80, 50, 79, (0.3, 0.2))
    values: dict[str, Any] = {
        "forgotten": Measurement(accuracy, 95, 77, 50, 75, (0.5, 0.4)),
        "oracle": oracle,
        "other_oracle": Measurement(accuracy + 4, 90, 80, 54, 79, (0.4, 0.2)),
        "without_noise": accuracy + 1 if guarantee is CERTIFIED else math.nan,
        "epsilon": {EXACT: 0.0, CERTIFIED: 2.987, EMPIRICAL: math.inf}[guarantee],
        "delta": 2e-5 if guarantee is CERTIFIED else 0.0,
        "identical": guarantee is EXACT,
        "seconds": 1.5,
        "bytes_sent": 2_500_000,
        **changes,
    }
    return Trial(guarantee, seed, **values)


def findings(*accuracies: float | None) -> Findings:
    """Return one trial of each guarantee that has an accuracy, strongest first."""
    pairs = zip(Guarantee, accuracies, strict=True)
    return Findings([trial(guarantee, accuracy) for guarantee, accuracy in pairs if accuracy is not None])


def rows(found: Findings) -> dict[str, list[str]]:
    """Return the cells of the table by their row's heading."""
    headings, *columns = ([str(cell) for cell in column.cells] for column in found.table().columns)
    return {heading: [column[place] for column in columns] for place, heading in enumerate(headings)}


@pytest.mark.parametrize(
    ("values", "mean", "half", "shown"),
    [
        # Student's t for 95% is 12.706 with one degree of freedom, 4.303 with two and 2.776 with four.
        ([1.0, 3.0], 2.0, 12.7062 * math.sqrt(2) / math.sqrt(2), "2.0 ± 12.7"),
        ([80.0, 82.0, 84.0], 82.0, 4.30265 * 2 / math.sqrt(3), "82.0 ± 5.0"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 2.77645 * math.sqrt(2.5) / math.sqrt(5), "3.0 ± 2.0"),
        ([7.0, 7.0], 7.0, 0.0, "7.0 ± 0.0"),
    ],
)
def test_interval_is_students(values: list[float], mean: float, half: float, shown: str) -> None:
    interval = Interval.of(values)

    assert (interval.mean, interval.half) == pytest.approx((mean, half), abs=1e-4)
    assert str(interval) == shown


@pytest.mark.parametrize(("values", "shown"), [([81.26], "81.3"), ([], "-"), ([math.nan, 80.0], "-")])
def test_without_two_values_there_is_no_interval(values: list[float], shown: str) -> None:
    interval = Interval.of(values)

    assert math.isnan(interval.half)
    assert str(interval) == shown


@pytest.mark.parametrize(
    ("exact", "certified", "empirical", "advice"),
    [
        (86.0, 86.0, 86.0, EXACT),
        (84.0, 85.0, 86.0, EXACT),
        (83.9, 84.0, 86.0, CERTIFIED),
        (70.0, 83.9, 86.0, EMPIRICAL),
        (70.0, 90.0, 86.0, CERTIFIED),
        (90.0, 70.0, 60.0, EXACT),
        (None, 84.0, 86.0, CERTIFIED),
        (84.0, None, 86.0, EXACT),
        (None, None, 86.0, EMPIRICAL),
    ],
)
def test_advice_is_the_strongest_guarantee_within_two_points(
    exact: float | None, certified: float | None, empirical: float | None, advice: Guarantee
) -> None:
    found = findings(exact, certified, empirical)

    assert TOLERANCE == 2
    assert found.advice is advice
    assert found.advice_line == (
        f"Take {advice}: the strongest guarantee that costs at most 2 points of test accuracy here. "
        f"What remains of a deleted record: {advice.remains}."
    )


def test_advice_is_by_the_mean_over_seeds() -> None:
    trials = [trial(EXACT, accuracy, seed) for seed, accuracy in enumerate((70.0, 90.0))]

    assert Findings([*trials, trial(EMPIRICAL, 82.0)]).advice is EXACT
    assert Findings([*trials, trial(EMPIRICAL, 82.1)]).advice is EMPIRICAL


def test_table_has_a_column_for_each_guarantee_tried() -> None:
    assert [column.header for column in findings(80.0, 81.0, 82.0).table().columns[1:]] == list(Guarantee)
    assert [column.header for column in findings(None, 81.0, None).table().columns[1:]] == ["certified"]


def test_table_shows_every_figure() -> None:
    shown = rows(findings(80.0, 81.0, 82.0))

    assert shown["TA %"] == ["80.0", "81.0", "82.0"]
    assert shown["FA %"] == ["77.0"] * 3
    assert shown["oracle's FA %"] == ["80.0"] * 3
    assert shown["Average Gap"] == ["3.0"] * 3
    assert shown["by chance"] == ["1.0"] * 3
    assert shown["training s"] == ["1.5"] * 3
    assert shown["MB sent"] == ["2.5"] * 3
    assert shown["TA % without noise"] == ["-", "82.0", "-"]
    assert shown["same bytes as oracle"] == ["always", "never", "never"]


def test_bound_is_shown_with_its_delta_and_never_rounded_down() -> None:
    shown = rows(Findings([trial(EXACT), trial(CERTIFIED, epsilon=2.981), trial(EMPIRICAL)]))

    assert shown["epsilon, delta = 2e-05"] == ["0.00 for 1 record", "2.99 for 1 record", "unbounded for 1 record"]
    assert rows(findings(80.0, None, 80.0))["epsilon"] == ["0.00 for 1 record", "unbounded for 1 record"]


def test_largest_bound_of_all_seeds_is_shown() -> None:
    found = Findings([trial(CERTIFIED, seed=seed, epsilon=epsilon) for seed, epsilon in enumerate((1.0, 3.0, 2.0))])

    assert rows(found)["epsilon, delta = 2e-05"] == ["3.00 for 1 record"]
    assert found.document()["guarantees"]["certified"]["epsilon"] == 3


def test_deletion_that_left_the_oracles_bytes_in_some_seeds_only_is_counted() -> None:
    found = Findings([trial(EXACT, seed=seed, identical=seed > 0) for seed in range(3)])

    assert rows(found)["same bytes as oracle"] == ["2 of 3"]
    assert found.document()["guarantees"]["exact"]["identical"] is False


def test_title_says_over_how_many_seeds_and_nothing_of_intervals_for_one() -> None:
    two = Findings([trial(EXACT, seed=seed) for seed in (4, 5)])

    assert two.table().title == "After deletion, mean of 2 seeds ± 95% interval"
    assert findings(80.0, 81.0, 82.0).table().title == "After deletion, one seed"


def test_document_is_strict_json_with_every_trial() -> None:
    trials = [trial(guarantee, 80.0 + seed, seed) for guarantee in Guarantee for seed in (0, 1)]

    document = json.loads(json.dumps(Findings(trials).document(), allow_nan=False))

    assert (document["advice"], document["tolerance"]) == ("exact", 2)
    assert list(document["guarantees"]) == list(Guarantee)
    for name, found in document["guarantees"].items():
        assert [one["seed"] for one in found["trials"]] == [0, 1]
        assert {one["guarantee"] for one in found["trials"]} == {name}
        assert found["summary"]["TA %"] == {
            "mean": 80.5,
            "half": pytest.approx(12.7062 / 2, abs=1e-3),
            "values": [80.0, 81.0],
        }
        assert found["trials"][0]["average_gap"] == pytest.approx(3)
        assert found["trials"][0]["gap_by_chance"] == pytest.approx(1)
        assert found["trials"][0]["forgotten"]["test_accuracy"] == 80
        assert "forget_confidence" not in found["trials"][0]["oracle"]
    # What JSON has no word for is null: no bound, no training without noise.
    assert document["guarantees"]["empirical"]["trials"][0]["epsilon"] is None
    assert document["guarantees"]["empirical"]["epsilon"] is None
    assert document["guarantees"]["exact"]["trials"][0]["without_noise"] is None
    assert document["guarantees"]["certified"]["trials"][0]["without_noise"] == 81
