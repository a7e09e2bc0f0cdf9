"""The register of runs: what each folder says, which one sites answer from, and which weights are kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.server.rounds.run_record import BEST, EVENTS, LAST, RoundRecord, RunRecord
from fedmunkey.server.rounds.runs import (
    LATEST,
    KeptRun,
    RunState,
    find_run,
    new_run_folder,
    read_runs,
    remove_old_weights,
    run_in_use,
    take_over_former,
)

NOON = datetime(2030, 5, 17, 12, tzinfo=UTC)


def ran(
    folder: Path,
    name: str,
    *,
    guarantee: str = "empirical",
    rounds: int = 1,
    finished: bool = True,
    gives_out: str | None = None,
) -> Path:
    """Leave what a run leaves; its weights are any bytes."""
    at = NOON.replace(minute=len(read_runs(folder)))
    facts: dict[str, Any] = {"guarantee": guarantee, **({"gives-out": gives_out} if gives_out else {})}

    def write(path: Path) -> None:
        path.write_bytes(name.encode())

    with RunRecord(folder / name, facts, clock=lambda: at) as record:
        for number in range(1, rounds + 1):
            record.note_round(RoundRecord(number, digest=name), None if gives_out else write, score=None)
        if finished:
            record.note_finished()
    return folder / name


def names(runs: list[KeptRun]) -> list[str]:
    return [run.name for run in runs]


def test_folder_is_named_by_the_time_and_an_id_of_its_own(tmp_path: Path) -> None:
    first, second = (new_run_folder(tmp_path, NOON) for _ in range(2))

    assert first.name.startswith("2030-05-17-120000-")
    assert first.name != second.name
    assert list(tmp_path.iterdir()) == []


def test_runs_are_known_by_their_folders_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    ran(tmp_path, "b", rounds=2)
    ran(tmp_path, "a", finished=False)
    with RunRecord(tmp_path / "c", {}, clock=lambda: NOON.replace(minute=2)) as record:
        record.note_stopped("no site could train")
    (tmp_path / "notes").mkdir()

    runs = read_runs(tmp_path)

    assert names(runs) == ["b", "a", "c"]
    assert [run.state for run in runs] == [RunState.FINISHED, RunState.CUT_OFF, RunState.STOPPED]
    assert [len(run.rounds) for run in runs] == [2, 1, 0]
    assert runs[2].reason == "no site could train"
    assert read_runs(tmp_path / "missing") == []
    assert not (tmp_path / "missing").exists()


def test_run_that_is_written_to_is_under_way(tmp_path: Path) -> None:
    with RunRecord(tmp_path / "a", {}):
        (run,) = read_runs(tmp_path)
        assert run.state is RunState.UNDER_WAY


def test_run_is_found_by_any_part_of_its_name_that_no_other_has(tmp_path: Path) -> None:
    for name in ("2030-01-01-aa", "2030-01-02-ab"):
        ran(tmp_path, name)
    runs = read_runs(tmp_path)

    assert find_run(runs, LATEST).name == find_run(runs, "ab").name == find_run(runs, "2030-01-02-ab").name
    for wrong, reason in {
        "2030": "may be any of 2030-01-01-aa, 2030-01-02-ab",
        "2030-01-01-ac": "there is no run 2030-01-01-ac; did you mean 2030-01-01-aa?",
        "": "there is no run ",
    }.items():
        with pytest.raises(InvalidSetting, match=reason):
            find_run(runs, wrong)
    with pytest.raises(InvalidSetting, match="there is no run yet"):
        find_run([], LATEST)


def test_sites_answer_from_the_last_run_that_ended_well_or_was_given_out_again(tmp_path: Path) -> None:
    assert run_in_use([]) is None
    for name, finished, used in (("a", True, "a"), ("b", False, "a"), ("c", True, "c")):
        ran(tmp_path, name, finished=finished)
        found = run_in_use(read_runs(tmp_path))
        assert found is not None
        assert found.name == used

    ran(tmp_path, "d", gives_out="a")

    found = run_in_use(read_runs(tmp_path))
    assert found is not None
    assert found.name == "a"


def test_release_of_exact_is_in_use_although_its_run_was_cut_off(tmp_path: Path) -> None:
    ran(tmp_path, "a", guarantee="exact")
    ran(tmp_path, "b", guarantee="exact", finished=False)

    found = run_in_use(read_runs(tmp_path))

    assert found is not None
    assert found.name == "b"


def nothing_deleted(_digest: str) -> list[str]:
    return []


def test_weights_of_the_last_runs_and_of_the_one_in_use_are_kept_and_figures_of_all(tmp_path: Path) -> None:
    for name in "abcd":
        ran(tmp_path, name, finished=name in "ab")

    removed = remove_old_weights(read_runs(tmp_path), 1, nothing_deleted)

    assert removed == dict.fromkeys("ac", "more than 1 runs came later")
    assert {run.name for run in read_runs(tmp_path) if run.weights} == {"b", "d"}
    assert {run.name: run.digest for run in read_runs(tmp_path)} == {name: name for name in "abcd"}
    assert remove_old_weights(read_runs(tmp_path), 1, nothing_deleted) == {}


def test_weights_that_hold_what_was_deleted_are_removed_at_once(tmp_path: Path) -> None:
    for name, guarantee in (("a", "exact"), ("b", "empirical"), ("c", "exact"), ("d", "exact")):
        ran(tmp_path, name, guarantee=guarantee)

    removed = remove_old_weights(read_runs(tmp_path), 10, lambda digest: ["request-1"] if digest in "abd" else [])

    # Weights in use are renewed, and what empirical ones hold is not known by any ledger.
    assert removed == {"a": "they were solved with what request-1 erased"}
    assert not (tmp_path / "a" / BEST).exists()
    assert (tmp_path / "a" / EVENTS).exists()


def test_what_an_earlier_version_left_is_the_first_run(tmp_path: Path) -> None:
    about = {"about": {"guarantee": "exact", "settings": {"num-classes": 3}}, "digest": "d1"}
    for name in (LAST, BEST):
        (tmp_path / name).write_bytes(b"weights")
        (tmp_path / name).with_suffix(".json").write_text(json.dumps(about))
    event = {"event": "round", "number": 1, "training": {}, "evaluation": {}, "mean": {"test-accuracy": 0.5}}
    lines = [event, {"event": "finished"}]
    (tmp_path / EVENTS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    taken = take_over_former(tmp_path)

    (run,) = read_runs(tmp_path)
    assert run.name == taken
    assert (run.state, run.guarantee, run.digest) == (RunState.FINISHED, "exact", "d1")
    assert run.settings == {"num-classes": 3}
    assert run.weights is not None
    assert run.weights.read_bytes() == b"weights"
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.name]
    assert take_over_former(tmp_path) is None


def test_taking_over_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    for name in (LAST, BEST):
        (tmp_path / name).write_bytes(name.encode())
    taken = take_over_former(tmp_path)
    assert taken is not None
    # As it is when the process was killed between the two.
    (tmp_path / taken / LAST).rename(tmp_path / LAST)

    assert take_over_former(tmp_path) == taken
    assert (tmp_path / taken / LAST).read_bytes() == LAST.encode()
    assert len(read_runs(tmp_path)) == 1
