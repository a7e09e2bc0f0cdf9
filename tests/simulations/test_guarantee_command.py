"""`munkey-sim guarantees` as a person uses it: one table, one piece of advice, and JSON that any program reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmunkey.client.dataset import Dataset, Split
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.guarantees import Guarantee
from fedmunkey.common.settings import Settings
from fedmunkey.simulations import encoded_set, guarantee_command
from fedmunkey.simulations.cli import main
from fedmunkey.simulations.guarantees import Question, Trial, attempt

QUICK = ["--hospitals", "2", "--seeds", "2", "--permanent", "50%", "--forget", "20%"]
SETTINGS = ["image-path=frozen", "num-rounds=2", "exemplar-size=8", "fewest-permanent=10", "seed=7"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(few_digits: Dataset, tmp_path: Path) -> Path:
    arrays: dict[str, Any] = {}
    for split in Split:
        records = few_digits.split(split)
        arrays |= {f"{split}_images": records.images[:, 0], f"{split}_labels": records.labels[:, None]}
    np.savez(tmp_path / "few.npz", **arrays)
    return tmp_path / "few.npz"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Collect what is compared, and compare it in this process."""
    questions: list[Question] = []

    def compare(
        question: Question,
        guarantees: Sequence[Guarantee],
        seeds: Sequence[int],
        *,
        processes: int,
        done: Callable[[Trial], None],
    ) -> list[Trial]:
        assert processes >= 1
        questions.append(question)
        trials = [attempt(question, guarantee, seed) for guarantee in guarantees for seed in seeds]
        for trial in trials:
            done(trial)
        return trials

    monkeypatch.setattr(guarantee_command, "compare", compare)
    return questions


@pytest.fixture
def run(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `munkey-sim guarantees` on few digits; return its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["munkey-sim", "guarantees", "--data", str(data), *QUICK, *settings, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run it with words that must be refused before anything is computed; return the one line that says why."""
    monkeypatch.setattr(encoded_set, "encode_all", None)
    monkeypatch.setattr(guarantee_command, "compare", None)

    def refused(*words: str) -> str:
        code, out, err = run(*words)
        (line,) = err.splitlines()
        assert (code, out) == (EXIT_CODE, "")
        assert line.startswith("error: ")
        return line

    return refused


def document(out: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(out, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_table_and_advice_are_printed(run: Run, asked: list[Question]) -> None:
    code, out, err = run()

    assert code == 0, err
    assert "mean of 2 seeds" in out
    assert all(guarantee in out for guarantee in Guarantee)
    assert out.splitlines()[-1].startswith("Take ")
    assert "trying guarantees" in err
    assert (asked[0].hospitals, asked[0].permanent, asked[0].forget) == (2, 0.5, 0.2)


def test_json_is_the_document_alone_and_holds_every_trial(run: Run, asked: list[Question], data: Path) -> None:
    code, out, err = run("--json", "--epsilon", "4")

    assert (code, err) == (0, "")
    found = document(out)
    assert (found["data"], found["hospitals"], found["permanent"], found["forget"]) == (str(data), 2, 0.5, 0.2)
    assert list(found["guarantees"]) == list(Guarantee)
    for each in found["guarantees"].values():
        assert [trial["seed"] for trial in each["trials"]] == [7, 8]
    assert found["guarantees"]["exact"]["identical"] is True
    assert found["guarantees"]["empirical"]["epsilon"] is None
    assert 3.2 < found["guarantees"]["certified"]["epsilon"] <= 4
    assert found["advice"] in list(Guarantee)
    assert Settings.parse(found["settings"]) == asked[0].settings


def test_delta_is_one_in_ten_times_the_training_records_unless_it_is_set(run: Run, asked: list[Question]) -> None:
    run("--only", "empirical", "--seeds", "1")
    run("--only", "empirical", "--seeds", "1", "--set", "delta=0.001")

    assert [question.settings.delta for question in asked] == [pytest.approx(1 / 600), 0.001]


def test_only_the_named_guarantees_are_tried_strongest_first_and_each_once(run: Run, asked: list[Question]) -> None:
    del asked
    names = ["--only", "empirical", "--only", "exact", "--only", "empirical"]

    _, out, _ = run("--json", "--seeds", "1", *names)

    found = document(out)["guarantees"]
    assert list(found) == ["exact", "empirical"]
    assert [len(each["trials"]) for each in found.values()] == [1, 1]


def test_output_holds_what_json_prints(run: Run, asked: list[Question], tmp_path: Path) -> None:
    del asked
    path = tmp_path / "guarantees.json"

    _, out, _ = run("--only", "empirical", "--seeds", "1", "--json", "--output", str(path))

    assert document(path.read_text()) == document(out)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "guarantee=exact"], "guarantee = exact: all are tried here; choose with --only"),
        (["--set", "guarantee=absolute"], "guarantee = absolute: all are tried here; choose with --only"),
        (["--set", "num-classes=3"], "num-classes = 3: comes from the data set; leave it out"),
        (["--only", "absolute"], "'absolute' is not one of 'exact', 'certified', 'empirical'"),
        (["--forget", "some"], "'some' is not a share; write for example 30%"),
        (["--forget", "101%"], "101% is out of range; give from 0% to 100%"),
        (["--permanent", "-1%"], "-1% is out of range; give from 0% to 100%"),
        (["--epsilon", "0"], "epsilon = 0"),
        (["--epsilon", "inf"], "epsilon = inf: bounds nothing"),
        (["--set", "num-round=3"], "num-round: did you mean num-rounds?"),
        (["--seeds", "0"], "--seeds"),
        (["--hospitals", "0"], "--hospitals"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_computed(
    refused: Callable[..., str], words: list[str], reason: str
) -> None:
    assert reason in refused(*words)


@pytest.mark.parametrize("place", ["nowhere/guarantees.json", "."])
def test_output_that_cannot_be_written_is_named_before_anything_is_computed(
    refused: Callable[..., str], tmp_path: Path, place: str
) -> None:
    path = tmp_path / place

    assert refused("--output", str(path)) == f"error: --output {path}: must be a file in a folder that is there"


def test_forgetting_more_than_may_be_is_refused(run: Run) -> None:
    code, out, err = run("--forget", "60%")

    line = err.splitlines()[-1]
    assert (code, out) == (EXIT_CODE, "")
    assert line.startswith("error: 18 records of hospital-1 cannot be forgotten, only ")
    assert line.endswith("may be; forget fewer, or make fewer permanent")


def test_more_hospitals_than_subjects_are_refused(run: Run) -> None:
    code, _, err = run("--hospitals", "500")

    assert code == EXIT_CODE
    assert "500 hospitals" in err.splitlines()[-1]
