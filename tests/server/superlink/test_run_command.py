from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import pytest

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.superlink.run_command import check_finished, follow, prepare, read_events, summary
from tests.processes import gone

SETTINGS = Settings.parse({"num-rounds": 2})
ROUND = {
    "event": "round",
    "number": 1,
    "sites": ["hospital-1", "hospital-2"],
    "evaluation": {"hospital-1": {}, "hospital-2": {}},
    "mean": {"test-accuracy": 0.891},
    "failures": {"hospital-3": "its epsilon is spent"},
}


def test_app_and_connection_are_what_flower_reads(tmp_path: Path) -> None:
    command = prepare(tmp_path, "127.0.0.1:8444", Path("/srv/ca.pem"), SETTINGS)

    connection = tomllib.loads((tmp_path / "config.toml").read_text())["superlink"]["coordinator"]
    app = Path(command[2])
    assert connection == {"address": "127.0.0.1:8444", "root-certificates": "/srv/ca.pem"}
    assert [path.name for path in app.iterdir()] == ["pyproject.toml"]
    manifest = tomllib.loads((app / "pyproject.toml").read_text())
    assert Settings.parse(manifest["tool"]["flwr"]["app"]["config"]) == SETTINGS
    assert Path(command[0]).name == "flwr"


def test_a_line_for_each_round_names_sites_that_did_not_take_part() -> None:
    assert summary([ROUND, {"event": "stopped", "reason": "no site"}]) == [
        "round 1: 2 sites, test accuracy 89.1%; hospital-3 did not take part: its epsilon is spent",
        "stopped: no site",
    ]


def test_line_of_a_round_says_at_how_many_sites_an_accuracy_is_known() -> None:
    some = {**ROUND, "evaluation": {"hospital-1": {}}, "failures": {}}

    assert summary([some]) == ["round 1: 2 sites, test accuracy 89.1% at the 1 that told theirs"]
    assert summary([{**some, "evaluation": {}, "mean": {}}]) == ["round 1: 2 sites"]
    assert summary([{**some, "evaluation": {}, "mean": {"left-out-accuracy": 0.75}}]) == [
        "round 1: 2 sites, left-out accuracy 75.0%"
    ]


def test_run_that_came_to_its_end_is_finished() -> None:
    check_finished([ROUND, {"event": "finished"}], SETTINGS)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "after 0 of 2 rounds: it was stopped, or failed"),
        ([ROUND], "after 1 of 2 rounds: it was stopped, or failed"),
        ([ROUND, {"event": "stopped", "reason": "no site is left"}], "after 1 of 2 rounds: no site is left"),
    ],
)
def test_run_that_did_not_come_to_its_end_says_why(events: list[dict[str, object]], said: str) -> None:
    with pytest.raises(FederationStopped, match=said):
        check_finished(events, SETTINGS)


def test_events_are_read_line_by_line_and_may_be_missing(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []
    (tmp_path / "events.jsonl").write_text(f"{json.dumps(ROUND)}\n")
    assert read_events(tmp_path / "events.jsonl") == [ROUND]


def test_output_is_shown_as_it_comes_and_runs_are_known_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    started: list[str] = []

    follow([sys.executable, "-S", "-c", "print('Successfully started run 42')"], {}, 60, sys.stdout, started)

    assert capsys.readouterr().out == "Successfully started run 42\n"
    assert started == ["42"]


def test_failure_to_start_says_the_last_line_and_what_to_look_at(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo connection refused; exit 1"]

    with (tmp_path / "log").open("w") as log, pytest.raises(FederationStopped) as stopped:
        follow(command, {}, 60, log, [])

    assert "connection refused; is munkey-server up running?" in str(stopped.value)


def test_run_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/inner; wait"]

    with (tmp_path / "log").open("w") as log, pytest.raises(FederationStopped, match="still going"):
        follow(command, {}, 2.0, log, [])

    assert gone(int((tmp_path / "inner").read_text()))
