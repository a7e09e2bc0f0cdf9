from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.superlink.event_lines import event_lines
from fedmunkey.server.superlink.run_command import check_finished, follow, prepare
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


def test_a_line_for_each_round_and_one_for_each_site_that_did_not_take_part() -> None:
    assert event_lines(ROUND, 2) == [
        "round 1 of 2: 2 sites, test accuracy 89.1%",
        "  hospital-3 did not take part: its epsilon is spent",
    ]
    assert event_lines({"event": "stopped", "reason": "no\nsite"}, 2) == [r"stopped: no\nsite"]


def test_line_of_a_round_says_at_how_many_sites_an_accuracy_is_known() -> None:
    some = {**ROUND, "evaluation": {"hospital-1": {}}, "failures": {}}

    assert event_lines(some, 2) == ["round 1 of 2: 2 sites, test accuracy 89.1% at the 1 that told theirs"]
    quiet = {**some, "sites": ["hospital-1"], "evaluation": {}, "mean": {}, "seconds": 1.25}
    assert event_lines(quiet, 2) == ["round 1 of 2: 1 site, 1.2 s"]
    solved = {**quiet, "mean": {"left-out-accuracy": 0.75}}
    assert event_lines(solved, 2) == ["round 1 of 2: 1 site, left-out accuracy 75.0%, 1.2 s"]


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


def test_output_is_shown_without_colours_and_runs_are_known_by_number() -> None:
    started: list[str] = []

    shown: list[str] = []
    words = r"print('\x1b[32mSuccessfully\x1b[0m started run 42')"

    follow([sys.executable, "-S", "-c", words], {}, 60, shown.append, started)

    assert shown == ["Successfully started run 42"]
    assert started == ["42"]


def test_failure_to_start_says_the_last_line_and_what_to_look_at() -> None:
    command = ["/bin/sh", "-c", "echo connection refused; exit 1"]

    with pytest.raises(FederationStopped) as stopped:
        follow(command, {}, 60, None, [])

    assert "connection refused; is munkey-server up running?" in str(stopped.value)


def test_run_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/inner; wait"]

    with pytest.raises(FederationStopped, match="still going"):
        follow(command, {}, 2.0, None, [])

    assert gone(int((tmp_path / "inner").read_text()))


def test_an_error_in_a_frame_is_said_whole() -> None:
    framed = "Loading\n╭─ Error ──────────╮\n│ The 'insecure' of │\n│ a connection.     │\n╰───────────────────╯\n"
    command = [sys.executable, "-c", f"print({framed!r}); exit(1)"]

    with pytest.raises(FederationStopped, match=r"followed: The 'insecure' of a connection\.; is munkey-server up"):
        follow(command, {"PYTHONIOENCODING": "utf-8"}, 60, None, [])
