"""A report of a thousand hospitals shows how they are spread, and by name only those at both ends."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from fedmunkey.simulations.reporting import run_tables
from fedmunkey.simulations.reporting.html import render_html, run_charts
from fedmunkey.simulations.reporting.many_hospitals import MOST_LISTED, at_the_ends, spread
from fedmunkey.simulations.reporting.markdown import render_markdown
from tests.simulations.reporting import examples

COUNT = 1000


@pytest.fixture
def many() -> dict[str, Any]:
    """A run with a thousand hospitals, the first of which is the worst and the smallest."""
    run = copy.deepcopy(examples.run())
    one, names = run["hospitals"][0], [f"hospital-{number}" for number in range(1, COUNT + 1)]
    records = {name: {**one["records"], "train": 10 + place} for place, name in enumerate(names)}
    run["hospitals"] = [{**one, "name": name, "records": records[name]} for name in names]
    accuracy = {name: 50 + place / COUNT for place, name in enumerate(names)}
    run["final"] |= {"per_hospital": accuracy, "own_per_hospital": {**accuracy, names[7]: None}}
    run["baselines"] = {}
    for event in run["rounds"]:
        event["evaluation"] = {name: {"test-accuracy": accuracy[name] / 100} for name in names}
    return run


def test_tables_have_quantiles_and_a_few_names(many: dict[str, Any]) -> None:
    mixes, hospitals = run_tables.mix_rows(many), run_tables.hospital_rows(many)

    assert [row[0] for row in mixes[:5]] == ["lowest", "lower tenth", "median", "upper tenth", "highest"]
    assert [row[0] for row in mixes[5:]] == [f"hospital-{n}" for n in (1, 2, 3, 4, 5, 996, 997, 998, 999, 1000)]
    assert mixes[0][1] == "50.0"
    assert [row[:2] for row in hospitals[:5]] == [
        ("lowest", "10"),
        ("lower tenth", "110"),
        ("median", "510"),
        ("upper tenth", "909"),
        ("highest", "1,009"),
    ]
    assert {len(row) for row in hospitals} == {len(run_tables.HOSPITALS)}
    assert {len(row) for row in run_tables.round_rows(many)} == {len(run_tables.round_headings(many))} == {7}


def test_page_and_markdown_stay_readable(many: dict[str, Any]) -> None:
    assert len(render_markdown(many).splitlines()) < 150
    assert render_html(many).count("hospital-") < 100
    assert "tenth" in run_charts(many)["accuracy"].svg


def test_few_hospitals_are_listed_one_by_one() -> None:
    run = examples.run()

    assert len(run["hospitals"]) <= MOST_LISTED
    assert [row[0] for row in run_tables.mix_rows(run)] == [one["name"] for one in run["hospitals"]]


def test_unknown_values_count_nowhere() -> None:
    assert spread([None, 1.0, 3.0]) == [1.0, pytest.approx(1.2), 2.0, pytest.approx(2.8), 3.0]
    assert spread([None]) == [None] * 5
    assert at_the_ends(["a", "b", "c"], [2.0, None, 1.0]) == ["c", "a"]
    assert len(at_the_ends([str(n) for n in range(99)], np.arange(99.0).tolist())) == 10
