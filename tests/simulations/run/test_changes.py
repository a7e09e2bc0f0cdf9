"""Hospitals that come, go and sleep, and records that arrive while a simulation runs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.errors import InvalidDeletion, InvalidSetting
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.run.changes import Timeline, parse_changes
from fedmunkey.simulations.run.plan import parse_plan, resolve
from tests.simulations.tiny_hospitals import records_of
from tests.simulations.whole_runs import RUN_SECONDS, started

HOSPITALS = [records_of(f"h{number}", ["train"] * 10 + ["test"] * 2) for number in range(4)]


def timeline(*changes: str, rounds: int = 5) -> Timeline:
    return Timeline.draw(parse_changes(changes, hospitals=4, num_rounds=rounds), HOSPITALS, seed=1)


@pytest.mark.parametrize("text", ["join:3@2", "leave:4@3", "sleep:2@1-3", "arrive:20%@3", "arrive:7@5"])
def test_a_change_is_written_as_it_is_read(text: str) -> None:
    (change,) = parse_changes([text], hospitals=4, num_rounds=5)

    assert str(change) == text


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (["join:3"], "'join:3' is no change of hospitals or records"),
        (["join:3@2-3"], "'join:3@2-3' is no change of hospitals or records"),
        (["join:1.5@2"], "'join:1.5@2' is no change of hospitals or records"),
        (["join:3@1"], "join:3@1: choose rounds from 2 to 5"),
        (["sleep:3@4-6"], "sleep:3@4-6: choose rounds from 1 to 5"),
        (["sleep:3@4-2"], "sleep:3@4-2: choose rounds from 1 to 5"),
        (["leave:5@2"], "leave:5@2: names hospital 5, but there are 4"),
        (["leave:20%@2"], "leave:20%@2: names hospital 20%, but there are 4"),
        (["arrive:0@2"], "arrive:0@2: no record arrives"),
        (["arrive:100%@2"], "arrive:100%@2: 100% is out of range"),
        (["join:2@3", "join:2@4"], "hospital 2 joins and leaves at most once each"),
        (["join:2@4", "leave:2@3"], "hospital 2 joins and leaves at most once each"),
        (["leave:2@3", "sleep:2@2-4"], "sleep:2@2-4: hospital 2 is a member from round 1 to 2 only"),
    ],
)
def test_a_change_that_cannot_be_is_refused_in_one_line(texts: list[str], fault: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        parse_changes(texts, hospitals=4, num_rounds=5)

    assert str(refused.value).startswith(fault)
    assert "\n" not in str(refused.value)


def test_who_is_there_in_each_round() -> None:
    plan = timeline("join:1@2", "leave:2@3", "sleep:3@2-3")

    there = {number: [plan.is_there(place, number) for place in range(4)] for number in range(1, 6)}

    assert there == {
        1: [False, True, True, True],
        2: [True, True, False, True],
        3: [True, False, False, True],
        4: [True, False, True, True],
        5: [True, False, True, True],
    }
    # Who sleeps is a member.
    assert plan.is_member(2, 3)
    assert not plan.holds(1, 3).any()


def test_records_arrive_once_and_held_out_ones_are_there_from_the_beginning() -> None:
    plan = timeline("arrive:25%@2", "arrive:6@4")

    assert [sum(int(plan.holds(place, number).sum()) for place in range(4)) for number in range(1, 6)] == [
        *(32, 42, 42, 48, 48)
    ]
    held_out = [hospital.splits != Split.TRAIN.value for hospital in HOSPITALS]
    assert all((since[rows] == 1).all() for since, rows in zip(plan.since, held_out, strict=True))
    assert all(
        np.array_equal(*pair) for pair in zip(plan.since, timeline("arrive:25%@2", "arrive:6@4").since, strict=True)
    )


def test_more_records_than_there_are_cannot_arrive() -> None:
    with pytest.raises(InvalidSetting, match="arrive:30@3: no training record is left to begin with"):
        timeline("arrive:10@2", "arrive:30@3")


def test_nothing_is_drawn_that_is_not_there() -> None:
    plan = timeline("join:1@3", "sleep:2@2-2", "leave:3@2", "arrive:10@3")

    (records,) = resolve(parse_plan(["records:7@2"], hospitals=4, num_rounds=5), HOSPITALS, 1, plan)

    assert [len(rows) for rows in records.rows] == [0, 0, 0, 7]
    assert plan.holds(3, 2)[records.rows[3]].all()


def test_a_hospital_that_sleeps_asks_for_nothing() -> None:
    with pytest.raises(
        InvalidDeletion, match="site:2@2: hospital 2 is not there before round 2, so it asks for nothing"
    ):
        resolve(parse_plan(["site:2@2"], hospitals=4, num_rounds=5), HOSPITALS, 1, timeline("sleep:2@2-2"))


@pytest.mark.flower
def test_hospitals_come_and_go_and_the_weights_are_of_what_is_left(tmp_path: Path) -> None:
    words = ["--hospitals", "4", "--no-baselines", "--cores", "2", "--output", str(tmp_path / "run"), "--seed", "3"]
    changes = ["join:1@2", "sleep:2@2-2", "leave:3@3", "arrive:30%@3"]
    plan = ["subjects:8@2", "records:3%@3"]
    options = [word for one in changes for word in ("--change", one)] + [w for one in plan for w in ("--delete", one)]

    # A test's own folder is too deep for Ray's sockets.
    with tempfile.TemporaryDirectory() as temporary:
        assert started(*words, *options, temporary=Path(temporary)).wait(RUN_SECONDS) == 0

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["same_weights"] is True
    assert [event["sites"] for event in report["rounds"]] == [
        ["hospital-2", "hospital-3", "hospital-4"],
        ["hospital-1", "hospital-3", "hospital-4"],
        ["hospital-1", "hospital-2", "hospital-4"],
    ]
    assert [(change["plan"], change["took_part"]) for change in report["changes"]] == [
        *(("join:1@2", 3), ("sleep:2@2-2", 3), ("leave:3@3", 3), ("arrive:30%@3", 3))
    ]
    # What was asked for while hospital 2 slept went when it was back.
    assert report["deletions"][0]["entries"] == sum(report["deletions"][0]["expected"])
    with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
        assert [site.name for site in ledger.sites() if site.left_at is not None] == ["hospital-3"]
        assert ledger.pending() == 0
    assert sorted(path.name for path in (tmp_path / "run" / "sites" / ".away").iterdir()) == ["hospital-3"]
