"""`munkey-sim hospitals` as a person uses it: each hospital against itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.simulations.comparison import hospitals_command
from fedmunkey.simulations.comparison.hospital_gains import (
    ALONE,
    BETTER,
    COMMON,
    FEDERATED,
    NEIGHBOURS,
    OWN,
    AtHospital,
    Division,
    Gains,
    share_that_loses,
)
from fedmunkey.simulations.comparison.judging import Judged
from fedmunkey.simulations.federation import encoded_set
from tests.simulations.conftest import MunkeySim


@pytest.fixture
def run(
    munkey_sim: MunkeySim, few_npz: Path, tasks_here: Callable[[ModuleType], list[Any]]
) -> Callable[..., tuple[int, str, str]]:
    """Run it on few digits, in this process."""
    tasks_here(hospitals_command)
    quick = ["--hospitals", "3", "--seeds", "2", "--set", "random-features=50", "--set", "seed=7"]
    return lambda *words: munkey_sim("hospitals", "--data", str(few_npz), *quick, *words)


def hospital(name: str, federated: float, alone: float, neighbours: float) -> AtHospital:
    accuracies = {FEDERATED: federated, ALONE: alone, NEIGHBOURS: neighbours}
    judged = {model: Judged(accuracy, *[0.0] * 5) for model, accuracy in accuracies.items()}
    return AtHospital(name, 10, {COMMON: judged, OWN: judged})


def test_a_hospital_is_compared_with_itself_and_with_the_better_of_its_own() -> None:
    divisions = [
        Division([hospital("first", 90, 80, 85), hospital("second", 70, 75, 60)], "", 1.0),
        Division([hospital("first", 90, 90.5, 80), hospital("second", 80, 70, 60)], "", 1.0),
    ]
    gains = Gains("cells", 1.0, divisions)

    assert gains.every_gain(COMMON, ALONE) == [10, -5, -0.5, 10]
    assert gains.every_gain(COMMON, NEIGHBOURS) == [5, 10, 10, 20]
    assert gains.every_gain(OWN, BETTER) == [5, -5, -0.5, 10]
    assert gains.gain(COMMON, ALONE).values == (2.5, 4.75)
    assert gains.mean(COMMON, FEDERATED, "accuracy").values == (80, 85)
    # Half a point is not counted.
    assert share_that_loses(gains.every_gain(OWN, BETTER)) == 25
    described = gains.to_json()["mixes"][COMMON]["gains"][ALONE]
    assert (described["worst"], described["share_that_loses"]) == (-5, 25)


def test_solved_weights_have_the_same_bytes_whatever_the_division(run: MunkeySim, tmp_path: Path) -> None:
    code, out, err = run("--alpha", "inf", "--alpha", "0.3", "--output", str(tmp_path / "gains.json"))

    assert code == 0, err
    assert "few, alpha = 0.3, mean of 2 seeds" in out
    assert (
        "few: shared weights have the same bytes where the records are divided and ordered otherwise; after 4 of 4"
        in out
    )
    document = json.loads((tmp_path / "gains.json").read_text())
    assert [one["alpha"] for one in document["results"]] == ["inf", "0.3"]
    digests = {digest for one in (*document["results"], *document["sets"]) for digest in one["digests"]}
    assert len(digests) == 1
    common = [one["mixes"]["common"]["models"]["federated"]["accuracy"] for one in document["results"]]
    assert all(0 < mean <= 100 for mean, _ in common)


def test_descended_weights_depend_on_the_division(run: MunkeySim) -> None:
    sizes = ["width=16", "depth=1", "heads=2", "exemplar-size=8", "local-epochs=1", "num-rounds=1"]
    words = [word for size in sizes for word in ("--set", size)]
    code, out, err = run("--guarantee", "empirical", "--alpha", "1", "--seeds", "1", "--json", *words)

    assert (code, err) == (0, "")
    (found,) = json.loads(out)["results"]
    assert found["identical"] == [0]
    assert found["digests"] == [""]
    assert np.isfinite(found["mixes"]["own"]["gains"]["better of both"]["worst"])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--forget", "some"], "'some' is not a share"),
        (["--set", "num-classes=3"], "num-classes = 3: comes from the data set; leave it out"),
        (["--output", "nowhere/gains.json"], "--output nowhere/gains.json: must be a file in a folder that is there"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_computed(
    run: MunkeySim, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str
) -> None:
    monkeypatch.setattr(encoded_set, "encode_all", None)

    code, out, err = run(*words)

    (line,) = err.splitlines()
    assert (code, out) == (EXIT_CODE, "")
    assert reason in line
