"""One simulation through everything: Flower, Ray, gRPC, key stores, the oracle and the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.key_store.residue import Residue
from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.words import OFFICER, RequestState
from fedmunkey.common.model.checkpoints import read_checkpoint
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.simulations.faults import residue
from fedmunkey.simulations.federation.enrolling import HELD_OUT
from fedmunkey.simulations.federation.partition import partition
from fedmunkey.simulations.federation.sources import load_dataset
from fedmunkey.simulations.reporting.document import read_document
from fedmunkey.simulations.run.plan import ResolvedDeletion, forget_rows, parse_plan, resolve
from tests.simulations.watched_simulation import HOME, OBJECTS, read_erased

pytestmark = pytest.mark.flower

ROOT = Path(__file__).parents[3]
PLAN = ["records:5%@2", "subjects:3@2", "site:2@3"]
SIZES = [
    "guarantee=empirical",
    "width=16",
    "depth=1",
    "heads=2",
    "exemplar-size=16",
    "local-epochs=1",
    "batch-size=128",
]
SEED = 3
FOUR = {"test_accuracy", "retain_accuracy", "forget_accuracy", "membership"}


@dataclass(frozen=True)
class Ran:
    """A simulation that has ended: its folder, what it printed, and which processes it left behind."""

    folder: Path
    out: str
    err: str
    code: int
    left_behind: tuple[str, ...]
    notes: Path
    temporary: Path

    @property
    def report(self) -> dict[str, Any]:
        found = json.loads((self.folder / "report.json").read_text())
        assert isinstance(found, dict)
        return found

    @property
    def log(self) -> str:
        """What Flower and Ray wrote."""
        return "".join(file.read_text() for file in sorted((self.folder / "logs").glob("*.log")))

    def site(self, number: int) -> SiteFolder:
        return SiteFolder(self.folder / "sites" / f"hospital-{number}")


@pytest.fixture(scope="module")
def temporary() -> Iterator[str]:
    """The run's folder for temporary files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, temporary: str, marked_processes: Callable[[str], list[str]]) -> Ran:
    """Run the simulation once, for all tests here."""
    folder, mark = tmp_path_factory.mktemp("simulation") / "run", uuid.uuid4().hex
    notes = tmp_path_factory.mktemp("notes")
    words = ["--hospitals", "3", "--rounds", "3", "--seed", str(SEED), "--baseline", "oracle", "--output", str(folder)]
    words += [word for deletion in PLAN for word in ("--delete", deletion)]
    words += [word for size in SIZES for word in ("--set", size)]
    # The mark is in the environment of every process that descends from this one, whatever group it is in.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "dev", ROOT))),
        "COLUMNS": "120",
        "MUNKEY_TEST_MARK": mark,
    }
    # Short, for the paths of Ray's sockets.
    environment["TMPDIR"] = temporary
    ended = subprocess.run(  # noqa: S603 (this interpreter)
        [sys.executable, "-P", "-m", "tests.simulations.watched_simulation", str(notes), "run", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    left_behind = tuple(marked_processes(mark))
    return Ran(folder, ended.stdout, ended.stderr, ended.returncode, left_behind, notes, Path(temporary))


@pytest.fixture(scope="module")
def given() -> list[Dataset]:
    """What each hospital began with."""
    return partition(load_dataset("digits", data_dir=None, seed=SEED), 3, alpha=1.0, seed=SEED)


@pytest.fixture(scope="module")
def resolved(given: list[Dataset]) -> tuple[ResolvedDeletion, ...]:
    return resolve(parse_plan(PLAN, hospitals=3, num_rounds=3), given, SEED)


def test_it_ends_well_and_leaves_no_process_behind(ran: Ran) -> None:
    assert ran.code == 0, ran.err + ran.log
    assert ran.left_behind == ()


def test_terminal_shows_tables_and_where_the_report_is(ran: Ran) -> None:
    assert "MUNKEY, federated" in ran.out
    assert "(oracle)" in ran.out
    assert all(deletion in ran.out for deletion in PLAN)
    assert "A deletion here is empirical: " in ran.out
    assert ran.out.splitlines()[-1] == f"report: {ran.folder / 'report.html'}, pictures beside it"
    told = [line for line in ran.err.splitlines() if line.startswith("before round ")]
    assert [line.split(": ")[1].removesuffix(" over gRPC") for line in told] == PLAN


def test_page_markdown_and_pictures_lie_beside_the_report(ran: Ran) -> None:
    for name in ("accuracy.png", "forgotten.png"):
        assert (ran.folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ran.report == read_document(ran.folder / "report.json")
    assert ran.report["command"].endswith(f"--set {SIZES[-1]}")
    for name in ("report.html", "report.md"):
        assert all(plan in (ran.folder / name).read_text() for plan in PLAN)


def test_every_round_is_reported_with_every_hospital(ran: Ran) -> None:
    rounds = ran.report["rounds"]

    assert [event["number"] for event in rounds] == [1, 2, 3]
    for event in rounds:
        assert event["failures"] == {}
        assert sorted(event["evaluation"]) == ["hospital-1", "hospital-2", "hospital-3"]
        assert 0 < event["mean"]["test-accuracy"] <= 1
    assert rounds[2]["training"]["hospital-2"] == {"num-examples": 0.0, "train-loss": None}
    assert rounds[2]["evaluation"]["hospital-2"]["test-accuracy"] is None
    assert ran.report["final"]["per_hospital"]["hospital-2"] is None


def test_sites_train_on_what_is_left(ran: Ran, given: list[Dataset], resolved: tuple[ResolvedDeletion, ...]) -> None:
    trained = [
        [int(event["training"][f"hospital-{number}"]["num-examples"]) for number in (1, 2, 3)]
        for event in ran.report["rounds"]
    ]

    began = np.array([len(dataset.split(Split.TRAIN)) for dataset in given])
    first_two, third = (np.array([deletion.expected for deletion in part]) for part in (resolved[:2], resolved[2:]))
    assert trained[0] == began.tolist()
    assert trained[1] == (began - first_two.sum(0)).tolist()
    assert trained[2] == (began - first_two.sum(0) - third.sum(0)).tolist()
    assert trained[2][1] == 0


def test_deletions_erase_what_was_planned(ran: Ran, resolved: tuple[ResolvedDeletion, ...]) -> None:
    deletions = ran.report["deletions"]

    assert [deletion["plan"] for deletion in deletions] == PLAN
    for deletion, planned in zip(deletions, resolved, strict=True):
        assert deletion["expected"] == list(planned.expected)
        assert deletion["entries"] == sum(planned.expected)
        assert 0 < deletion["seconds"]["site"] <= deletion["seconds"]["slowest_request"]
        retraining = ran.report["baselines"]["oracle"]["seconds"]
        assert deletion["times_faster"]["request"] == pytest.approx(retraining / deletion["seconds"]["request"])
    assert [deletion["requests"] for deletion in deletions][1:] == [3, 1]
    # A simulated site has no held-out records of its own.
    assert deletions[2]["records"] == deletions[2]["entries"]


def test_key_stores_hold_the_records_that_stay_and_none_that_went(
    ran: Ran, given: list[Dataset], resolved: tuple[ResolvedDeletion, ...]
) -> None:
    for number, dataset in enumerate(given, start=1):
        gone = set(dataset.record_ids[forget_rows(resolved, 3)[number - 1]].tolist())
        secret = ran.site(number).read_secret()
        with ran.site(number).open() as store:
            for record in dataset.split(Split.TRAIN).record_ids.tolist():
                reference = secret.reference(record)
                assert store.records.holds(reference) is (record not in gone), record
            assert store.records.count(Split.TRAIN) == len(dataset.split(Split.TRAIN)) - len(gone)
            assert store.orders.read_unacknowledged() == []


def test_ledger_has_every_request_completed(ran: Ran) -> None:
    with Ledger(ran.folder / "ledger.sqlite") as ledger:
        statuses = ledger.page(size=100).statuses
        assert ledger.pending() == 0
        assert [number for number, _ in ledger.rounds()] == [1, 2, 3]

    assert len(statuses) == sum(deletion["requests"] for deletion in ran.report["deletions"])
    assert {status.state for status in statuses} == {RequestState.COMPLETED}
    assert [status.request.requester for status in statuses][-4:] == [OFFICER] * 3 + ["hospital-2"]


def test_what_was_known_is_measured_before_after_at_the_end_and_by_the_oracle(ran: Ran) -> None:
    report = ran.report
    measured = [deletion[when] for deletion in report["deletions"] for when in ("before", "after")]
    measured += [report["final"]["measurement"], report["baselines"]["oracle"]["measurement"]]

    for figures in measured:
        assert figures.keys() >= FOUR
        assert all(0 <= figures[name] <= 100 for name in FOUR)
    assert report["final"]["average_gap"] == pytest.approx(
        np.mean([abs(measured[-2][name] - measured[-1][name]) for name in FOUR])
    )
    assert report["final"]["test_accuracy"] == pytest.approx(measured[-2]["test_accuracy"], abs=0.5)


def test_settings_in_the_report_are_those_of_the_run(ran: Ran) -> None:
    settings = Settings.parse(ran.report["settings"])

    assert (settings.seed, settings.num_rounds, settings.width, settings.min_sites) == (SEED, 3, 16, 3)
    assert (settings.num_classes, str(settings.image_shape)) == (10, "1x8x8")
    assert Path(settings.output_dir) == ran.folder / "coordinator"
    last = read_checkpoint(Path(settings.output_dir) / "last.safetensors", encoder="descriptor")
    assert last.about["round"] == 3


def test_bytes_are_those_of_the_shared_weights(ran: Ran) -> None:
    # The file has the same numbers, with one header in place of one for each array.
    weights = (ran.folder / "coordinator" / "last.safetensors").stat().st_size

    # Three sites in three rounds: asked to train and to evaluate, and answering once with weights.
    assert 9 * weights * 0.5 < ran.report["bytes"]["weights_up"] < 9 * weights * 1.5
    assert ran.report["bytes"]["weights_down"] == 2 * ran.report["bytes"]["weights_up"]


def test_no_record_is_named_outside_the_sites(ran: Ran) -> None:
    outside = [path for path in ran.folder.rglob("*") if path.is_file() and "sites" not in path.parts]

    assert {"report.json", "ledger.sqlite", "run.log", "superlink.log", "events.jsonl"} <= {p.name for p in outside}
    for path in outside:
        assert re.search(rb"digit-\d", path.read_bytes()) is None, path
    assert re.search(r"digit-\d", ran.out + ran.err) is None


def test_no_file_of_flower_ray_or_the_sites_holds_what_was_erased(ran: Ran) -> None:
    erased = list(read_erased(ran.notes))
    sought = residue.Contents({0: set().union(*(residue._pieces(content) for _, content in erased))})
    home, objects = ran.notes / HOME, ran.notes / OBJECTS

    # All that there is of a record, encrypted and in the clear; and places in which something could have been found.
    assert {kind for kind, _ in erased} == set(Residue)
    assert {"raylet.out", "config.toml"} <= {path.name for path in home.rglob("*")}
    assert any(path.stat().st_size for path in objects.rglob("*") if path.is_file())
    # Held-out records, which are never erased, lie in the clear, and some of their numbers are those of erased ones.
    run = [path for path in ran.folder.iterdir() if path.is_dir() and path.name != HELD_OUT]
    for folder in (home, objects, ran.temporary, *run):
        assert sought.residue(folder, {0}) == 0, folder
    (home / "spill").write_bytes(b"." * 3 + next(content for kind, content in erased if kind is Residue.KEY))
    assert sought.residue(home, {0}) > 0


def test_no_file_of_flower_or_ray_names_a_record(ran: Ran) -> None:
    for folder in (ran.notes / HOME, ran.notes / OBJECTS, ran.temporary):
        for path in folder.rglob("*"):
            assert not path.is_file() or re.search(rb"digit-\d", path.read_bytes()) is None, path
