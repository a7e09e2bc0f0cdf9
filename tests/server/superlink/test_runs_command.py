"""`munkey-server runs` as a person types it; what a running coordinator does with it is in `deploy-local`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmunkey.common.deletions.renewals import ReleasedWeights, SiteContribution
from fedmunkey.common.deletions.words import Acknowledgement, SiteState
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.members.coordinator_folder import CoordinatorFolder
from fedmunkey.server.rounds.run_record import LAST, RoundRecord, RunRecord
from fedmunkey.server.superlink.coordinator_file import CoordinatorFile
from fedmunkey.server.superlink.run_command import settings_to_resume
from tests.releases import give
from tests.server.ledger.ledger_contract import own_site
from tests.server.superlink.test_coordinator_file import written
from tests.typed import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = written(tmp_path, "keep-runs = 3\n[run]\nnum-classes = 7\n")
    CoordinatorFolder(tmp_path / "coordinator").create("federation", ["127.0.0.1"])
    return path


@pytest.fixture
def ledger(file: Path) -> Iterator[Ledger]:
    with Ledger(CoordinatorFile.read(file).ledger) as ledger:
        ledger.register("hospital-1")
        yield ledger


def ran(file: Path, name: str, digest: str, *, finished: bool = True, rounds: int = 1) -> Path:
    """Leave what a run leaves; its weights are any bytes."""
    coordinator = CoordinatorFile.read(file)
    settings = coordinator.run_settings({"output-dir": str(coordinator.runs / name)})
    facts = {"guarantee": settings.guarantee.value, "settings": settings.to_config()}

    def write(path: Path) -> None:
        path.write_bytes(b"weights")

    with RunRecord(coordinator.runs / name, facts) as record:
        for number in range(1, rounds + 1):
            told = {"hospital-1": {"test-accuracy": 0.875, "num-examples": 40.0}}
            done = RoundRecord(
                number,
                sites=["hospital-1", "hospital-2"],
                evaluation=told,
                mean={"test-accuracy": 0.875},
                failures={"hospital-3": "its disk is full"},
                digest=digest,
                classes={"0": 30, "1": 70},
            )
            record.note_round(done, write, score=None)
        if finished:
            record.note_finished()
    return coordinator.runs / name


def release(ledger: Ledger, digest: str) -> None:
    part = SiteContribution("hospital-1", ledger.last_number("hospital-1"), b"")
    give(ledger, ReleasedWeights(digest, 100, 0, (part,)))


def erase(ledger: Ledger, name: str) -> None:
    ledger.enter(own_site(name))
    number = ledger.last_number("hospital-1")
    ledger.acknowledge(Acknowledgement(number, "hospital-1", name, SiteState.ERASED, 2, 2, Guarantee.EXACT, 0.1))


def test_before_the_first_run_that_is_said_and_nothing_is_made(run: Run, file: Path, ledger: Ledger) -> None:
    del ledger
    shown = run("runs", "--config", file)

    assert (shown.code, shown.out.startswith("there is no run yet in ")) == (0, True)
    assert not CoordinatorFile.read(file).runs.exists()


def test_without_a_ledger_none_is_made(run: Run, file: Path) -> None:
    assert "there is no ledger" in run("runs", "--config", file).error
    assert not Path(CoordinatorFile.read(file).ledger).exists()


def test_list_says_which_run_is_in_use_and_which_weights_hold_what_was_deleted(
    run: Run, file: Path, ledger: Ledger
) -> None:
    for name, digest in (("first", "1" * 64), ("second", "2" * 64)):
        ran(file, name, digest)
        release(ledger, digest)
        if name == "first":
            erase(ledger, "request-7")

    shown = run("runs", "--config", file).out.splitlines()

    assert [line.split()[:2] for line in shown[1:]] == [["first", "exact"], ["*", "second"]]
    assert "hold what request-7 erased" in shown[1]
    assert shown[2].split()[-3:] == ["1", "2", "87.5%"]
    first, second = run("runs", "--config", file, "--json").json
    assert (first["solved_with_deleted"], second["solved_with_deleted"]) == (["request-7"], [])
    assert (first["in_use"], second["in_use"]) == (False, True)


def test_classes_of_a_run_are_called_as_the_federation_card_has_it(run: Run, file: Path, ledger: Ledger) -> None:
    del ledger
    ran(file, "first", "aa" * 32)
    made = run("card", "make", "--class", "benign", "--class", "other", "--image-shape", "1x8x8", "--config", file)

    shown = run("runs", "show", "latest", "--config", file)

    assert made.code == 0, made.err
    assert [" ".join(line.split()) for line in shown.out.splitlines()[-3:-1]] == ["0 benign 30", "1 other 70"]


def test_one_run_is_shown_with_figures_by_site_and_class(run: Run, file: Path, ledger: Ledger) -> None:
    del ledger
    folder = ran(file, "first", "1" * 64)

    shown = run("runs", "show", "latest", "--config", file)

    words = shown.out.split()
    assert "num-classes = 7" in shown.out
    assert "  hospital-3 did not take part: its disk is full" in shown.out
    assert words[words.index("site") + 2 :][:2] == ["hospital-1", "87.5%"]
    assert words[words.index("class") + 2 :][:4] == ["0", "30", "1", "70"]
    assert f"learning curves: {folder / 'curves.svg'}" in shown.out
    document = run("runs", "show", "first", "--config", file, "--json").json
    assert document["figures"] == {"hospital-1": {"test-accuracy": 0.875, "num-examples": 40.0}}
    assert document["settings"]["num-classes"] == 7


def test_weights_that_hold_what_was_deleted_are_not_brought_back(run: Run, file: Path, ledger: Ledger) -> None:
    ran(file, "first", "1" * 64)
    release(ledger, "1" * 64)
    erase(ledger, "request-7")
    ran(file, "second", "2" * 64)
    release(ledger, "2" * 64)

    error = run("runs", "use", "first", "--config", file).error

    assert error.startswith("first was solved with records that were deleted since, by request request-7; it is not")
    assert {path.name for path in CoordinatorFile.read(file).runs.iterdir()} == {"first", "second"}


def test_run_without_weights_or_of_another_name_cannot_be_used(run: Run, file: Path, ledger: Ledger) -> None:
    del ledger
    folder = ran(file, "first", "1" * 64)
    (folder / LAST).unlink()

    assert "the weights of first were removed, for later runs are kept (keep-runs = 3)" in (
        run("runs", "use", "first", "--config", file).error
    )
    assert "there is no run frist; did you mean first?" in run("runs", "use", "frist", "--config", file).error


def test_only_the_last_run_is_gone_on_with_and_only_if_it_was_cut_off(file: Path, ledger: Ledger) -> None:
    del ledger
    runs = CoordinatorFile.read(file).runs
    folder = ran(file, "first", "1" * 64, finished=False)

    settings = settings_to_resume(runs)

    assert (settings.resume_run, settings.output_dir) == (True, str(folder))
    assert settings.num_classes == 7
    with RunRecord(folder, {}, goes_on=True), pytest.raises(InvalidSetting, match="the run first is under way"):
        settings_to_resume(runs)
    (folder / LAST).unlink()
    with pytest.raises(InvalidSetting, match="the weights of first are gone"):
        settings_to_resume(runs)
    ran(file, "second", "2" * 64)
    with pytest.raises(InvalidSetting, match="the last run, second, came to its end; begin another without --resume"):
        settings_to_resume(runs)


def test_resumption_takes_no_other_settings(run: Run, file: Path) -> None:
    assert "goes on with the settings that the run began with" in run("run", file, "--resume", "--rounds", "3").error
    assert "there is no run yet" in run("run", file, "--resume").error
