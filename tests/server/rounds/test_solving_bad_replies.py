"""Rounds in which weights are solved for go on without a site that does not answer as it should, and name it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, RecordDict
from numpy.typing import NDArray

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.programs.round_messages import (
    ARRAYS,
    CONFIG,
    CONTRIBUTE,
    GENERATION,
    LAST_ENTRY,
    LAST_ORDER,
    METRICS,
    NUMBERS,
    SITE,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.settings.settings import AbsentSites
from tests.solved_nodes import RECORDS, Hospitals, Spoil

pytestmark = pytest.mark.usefixtures("within_a_run")


def without(record: Any, name: str) -> None:
    del record[name]


def numbers_of(change: Callable[[NDArray[np.uint64]], NDArray[Any]]) -> Spoil:
    def spoil(content: RecordDict) -> None:
        arrays = content.array_records[ARRAYS]
        arrays[NUMBERS] = Array(change(arrays[NUMBERS].numpy()))

    return spoil


CASES: dict[str, tuple[str, Spoil]] = {
    "sums of another length": (CONTRIBUTE, numbers_of(lambda numbers: numbers[:-1])),
    "sums of another kind": (CONTRIBUTE, numbers_of(lambda numbers: numbers.astype(np.float64))),
    "no sums": (CONTRIBUTE, lambda content: without(content, ARRAYS)),
    "no array": (
        CONTRIBUTE,
        lambda content: content.array_records[ARRAYS].update({NUMBERS: Array("u8", (1,), "x", b"x")}),
    ),
    "no name": (CONTRIBUTE, lambda content: without(content, SITE)),
    "another's name": (CONTRIBUTE, lambda content: content.config_records[SITE].update({SITE: "hospital-1"})),
    "no facts": (CONTRIBUTE, lambda content: without(content, CONFIG)),
    "a fractional generation": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({GENERATION: 1.5})),
    "a word for an entry": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({LAST_ENTRY: "last"})),
    "a negative order": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({LAST_ORDER: -1})),
    "no metrics": (CONTRIBUTE, lambda content: without(content, METRICS)),
    "tallies of another length": (TALLY, numbers_of(lambda numbers: numbers[:1])),
    "no tallies": (TALLY, lambda content: without(content, ARRAYS)),
}


@pytest.mark.parametrize("case", CASES)
def test_round_is_solved_without_a_site_that_does_not_answer_as_it_should(tmp_path: Path, case: str) -> None:
    hospitals = Hospitals(tmp_path / "run", *CASES[case], absent_sites=AbsentSites.LEAVE_OUT)

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    (released,) = hospitals.released
    assert [each.site for each in released.contributions] == ["hospital-1", "hospital-3"]
    assert released.records == 2 * RECORDS


@pytest.mark.parametrize("case", ["none", "that of another site", "that of an officer", "of another authority"])
def test_masked_round_begins_without_a_site_that_shows_a_certificate_that_is_not_its_own(
    tmp_path: Path, case: str
) -> None:
    hospitals = Hospitals(tmp_path / "run")
    hospitals.rounds.authority = hospitals.authority.certificate
    shown = {
        "none": "",
        "that of another site": hospitals.certificates["hospital-1"],
        "that of an officer": hospitals.certify("hospital-2", MemberRole.OFFICER),
        "of another authority": Hospitals(tmp_path / "other").certify("hospital-2"),
    }
    hospitals.certificates["hospital-2"] = shown[case]

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    assert [each.site for each in hospitals.released[0].contributions] == ["hospital-1", "hospital-3"]


def test_run_stops_and_names_the_site_where_all_are_needed(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path / "run", *CASES["a fractional generation"], absent_sites=AbsentSites.STOP)

    with pytest.raises(FederationStopped, match=r"hospital-2: generation = 1\.5 is not a whole number"):
        hospitals.rounds.run()
    assert hospitals.released == []


@pytest.mark.parametrize("accuracy", [7.0, math.inf, [0.5, 0.5]])
def test_accuracies_that_cannot_be_are_no_part_of_the_mean(tmp_path: Path, accuracy: Any) -> None:
    def spoil(content: RecordDict) -> None:
        content.metric_records[METRICS]["test-accuracy"] = accuracy

    hospitals = Hospitals(tmp_path / "run", TAKE_RELEASE, spoil)

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    assert event["mean"]["test-accuracy"] == 0.5
    assert sorted(event["evaluation"]) == ["hospital-1", "hospital-3"]
