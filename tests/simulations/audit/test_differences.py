"""`munkey-sim differences` as a person uses it, and what each look at two releases tells."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.simulations.attacks.two_releases import features_by_totals, likeness, score_by_totals
from fedmunkey.simulations.audit.differences_command import GUESSES, TOTALS, WEIGHTS
from tests.simulations.conftest import MunkeySim

FEW = ["--set", "random-features=50", "--set", "seed=7"]


def test_who_keeps_weights_or_totals_can_tell_who_left_and_figures_say_how_well(
    munkey_sim: MunkeySim, few_npz: Path, tmp_path: Path
) -> None:
    words = ["--data", str(few_npz), "--changed", "1", "--changed", "5", "--seeds", "3", *FEW]

    code, out, err = munkey_sim("differences", *words, "--output", str(tmp_path / "found.json"))

    assert code == 0, err
    assert "50 is chance" in out
    document = json.loads((tmp_path / "found.json").read_text())
    assert [one["changed"] for one in document["results"]] == [1, 5]
    for one in document["results"]:
        assert len(one["auroc"][WEIGHTS]["values"]) == 3
        # Of few records in few numbers, the totals give every one away.
        assert one["auroc"][TOTALS]["mean"] == pytest.approx(100)
        assert one["auroc"][WEIGHTS]["mean"] > 80
    (found,) = document["reconstructed"]
    assert found["likeness"][TOTALS]["mean"] == pytest.approx(100)
    assert found["likeness"][WEIGHTS]["mean"] > found["likeness"][GUESSES]["mean"]
    assert "the record's own features" in out


def test_totals_that_differ_by_more_records_than_numbers_tell_nothing() -> None:
    generator = np.random.default_rng(3)
    numbers = generator.integers(-100, 100, (60, 8)).astype(float)
    numbers[:, -1] = 2.0**14
    labels, folds = np.zeros(60, np.int64), np.arange(60) % FOLDS
    before, after = (Sums.zeros(SumsShape(FOLDS, 8, 2)) for _ in range(2))
    before.add(numbers, labels, folds)
    after.add(numbers[40:], labels[40:], folds[40:])

    few = Sums.zeros(SumsShape(FOLDS, 8, 2))
    few.add(numbers[3:], labels[3:], folds[3:])

    assert score_by_totals(before, after, numbers) == pytest.approx(1)
    told = score_by_totals(before, few, numbers)
    assert told[:3] == pytest.approx(1)


def test_totals_that_differ_by_one_record_are_that_record() -> None:
    generator = np.random.default_rng(4)
    numbers = generator.integers(0, 100, (30, 8)).astype(float)
    labels, folds = np.zeros(30, np.int64), np.arange(30) % FOLDS
    before, after = (Sums.zeros(SumsShape(FOLDS, 8, 2)) for _ in range(2))
    before.add(numbers, labels, folds)
    after.add(numbers[1:], labels[1:], folds[1:])
    mean = numbers.mean(0)

    found = features_by_totals(before, after)

    assert likeness(found, numbers[0], mean) == pytest.approx(1)
    assert likeness(-found, numbers[0], mean) == pytest.approx(1)
    assert max(likeness(found, one, mean) for one in numbers[1:]) < 0.99
    assert likeness(mean, numbers[0], mean) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--changed", "100000"], "training records; some must stay"),
        (["--set", "guarantee=empirical"], "guarantee = empirical: only exact releases what is solved for"),
        (["--output", "/nowhere/found.json"], "--output /nowhere/found.json: must be a file in a folder that is there"),
    ],
)
def test_what_cannot_be_measured_is_refused(munkey_sim: MunkeySim, few_npz: Path, words: list[str], said: str) -> None:
    code, _, err = munkey_sim("differences", "--data", str(few_npz), *words)

    assert code == EXIT_CODE
    assert said in err
