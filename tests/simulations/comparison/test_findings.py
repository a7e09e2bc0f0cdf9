"""Who wins a comparison is decided by the figures alone, and said as it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.comparison.findings import COLUMNS, SetFindings
from tests.simulations.comparison.made_up import outcome

EXACT, CERTIFIED, EMPIRICAL = Guarantee


def findings(*outcomes: Outcome) -> SetFindings:
    return SetFindings("cells", outcomes)


def test_interval_is_over_seeds_in_their_order() -> None:
    found = findings(outcome("ssd", 1, after=84.0), outcome("ssd", 0, after=82.0), outcome("scrub", 0, after=10.0))

    interval = found.interval("ssd", "TA")

    assert (interval.mean, interval.values) == (83.0, (82.0, 84.0))
    # t(0.975, 1) = 12.706 standard errors of the mean.
    assert interval.half == pytest.approx(12.706, abs=1e-3)
    assert found.methods == ["ssd", "scrub"]


def test_every_column_is_found_in_an_outcome() -> None:
    found = {column.name: column.of(outcome("ssd", 0, after=84.0, forget=88.0)) for column in COLUMNS}

    assert len(found) == len(COLUMNS)
    assert (found["TA"], found["FA"], found["oracle's FA"]) == (84.0, 88.0, 80.0)
    assert found["Average Gap"] == pytest.approx((4 + 0 + 8 + 0) / 4)
    assert found["MB to forget"] == 2.0


@pytest.mark.parametrize(
    ("munkey", "other", "won", "gap", "accuracy"),
    [
        (("munkey-exact", {}), ("scrub", {"after": 80.9}), True, "MUNKEY, exact", "0.9 points behind, within 1 point"),
        (
            ("munkey-exact", {}),
            ("rapid-retraining", {"after": 81.1}),
            False,
            "",
            "1.1 points behind, not within 1",
        ),
        (
            ("munkey-empirical", {"forget": 84.0}),
            ("fine-tuning", {"forget": 82.0}),
            False,
            "fine-tuning, ViT (0.5 points) has a smaller Average Gap than MUNKEY, empirical (1.0",
            "",
        ),
        # A smaller gap of a method that retrains does not count, and a tie goes to the guarantee.
        (("munkey-empirical", {"forget": 84.0}), ("retraining", {}), True, "of all methods that do not retrain", ""),
        (
            ("munkey-exact", {}),
            ("nearest-neighbours", {}),
            True,
            "smallest Average Gap of all methods that do not retrain, and nearest neighbours has as small a one.",
            "",
        ),
    ],
)
def test_guarantee_wins_with_the_smallest_gap_of_those_that_do_not_retrain_near_the_best_accuracy(
    munkey: tuple[str, dict[str, float]], other: tuple[str, dict[str, float]], won: bool, gap: str, accuracy: str
) -> None:
    found = findings(*(outcome(name, 0, **figures) for name, figures in (munkey, other)))

    assert found.won is won
    assert gap in found.sentences()[0]
    assert accuracy in found.sentences()[1]


def test_the_best_of_the_guarantees_is_judged() -> None:
    found = findings(outcome("munkey-empirical", 0, forget=90.0), outcome("munkey-exact", 0), outcome("ssd", 0))

    assert found.munkey == "munkey-exact"


def test_guarantees_alone_and_baselines_alone_are_no_contest() -> None:
    for alone in (findings(outcome("munkey-exact", 0)), findings(outcome("ssd", 0))):
        assert not alone.contested
        assert not alone.won
    assert alone.sentences() == [
        "cells: selective synaptic dampening, ViT (0.0 points) has the smallest Average Gap.",
        "cells: the most accurate is selective synaptic dampening, ViT (80.0 %).",
    ]


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
    means = zip(Guarantee, (exact, certified, empirical), strict=True)
    tried = [(guarantee, mean) for guarantee, mean in means if mean is not None]
    # Two seeds, of which only the mean counts.
    found = findings(
        *(outcome(f"munkey-{one}", seed, after=mean - 5 + 10 * seed) for one, mean in tried for seed in (0, 1))
    )

    assert found.advice is advice
    assert found.sentences() == [
        f"cells: take {advice}, the strongest guarantee that costs at most 2 points of test accuracy here. What "
        f"remains of a deleted record: {advice.remains}."
    ]


def test_epsilon_is_never_rounded_down() -> None:
    (column,) = (column for column in COLUMNS if column.name == "epsilon")

    assert column.of(replace(outcome("munkey-certified", 0), epsilon=2.981)) == 2.99
    assert math.isnan(column.of(outcome("munkey-empirical", 0)))


def test_method_without_a_figure_is_not_the_best() -> None:
    found = findings(outcome("ssd", 0, after=math.nan), outcome("scrub", 0, after=70.0))

    assert found.best("TA", found.methods, highest=True) == "scrub"
    assert found.best("TA", ["ssd"], highest=True) is None
