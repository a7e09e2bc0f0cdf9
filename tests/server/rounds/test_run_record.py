"""What a run leaves behind in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.settings.settings import ImagePath
from fedmunkey.server.rounds.run_record import (
    ABOUT,
    BEST,
    CURVES,
    EVENTS,
    LAST,
    RoundRecord,
    RunRecord,
    is_under_way,
)

SHAPE = ModelShape(ImagePath.FROZEN, (1, 4), 0, num_classes=2, width=8, depth=1, heads=1, exemplar_size=2)


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(tmp_path / "run", {"guarantee": "empirical"})


def weights(value: float) -> Mapping[str, Tensor]:
    return {name: torch.full_like(weight, value) for name, weight in Munkey(SHAPE).state_dict().items()}


def note(record: RunRecord, done: RoundRecord, weight: float) -> None:
    about = record.about(done)

    def write(path: Path) -> None:
        write_checkpoint(path, Checkpoint(weights(weight), SHAPE, "descriptor", about))

    record.note_round(done, write, score=done.mean.get("selection-accuracy"))


def value(path: Path) -> float:
    found = {float(weight.flatten()[0]) for weight in read_checkpoint(path, expected=SHAPE).weights.values()}
    assert len(found) == 1
    return found.pop()


def events(folder: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / EVENTS).read_text().splitlines()]


def round_with(number: int, **mean: float) -> RoundRecord:
    return RoundRecord(number, mean={name.replace("_", "-"): value for name, value in mean.items()})


def test_every_event_is_one_line_of_json(record: RunRecord, tmp_path: Path) -> None:
    done = RoundRecord(
        1,
        training={"hospital-1": {"train-loss": 0.5, "num-examples": 7.0}},
        evaluation={"hospital-1": {"test-accuracy": 0.25}},
        failures={"hospital-2": "there is no key store"},
        mean={"test-accuracy": 0.25},
        bytes_down=20,
        bytes_up=10,
        seconds=1.5,
    )
    note(record, done, 1)
    record.note_waiting("the deletion service cannot be reached")
    record.note_stopped("it stayed away")
    record.note_finished()

    first, *others = events(tmp_path / "run")

    assert first == {"event": "round", **asdict(done)}
    assert others == [
        {"event": "waiting", "reason": "the deletion service cannot be reached"},
        {"event": "stopped", "reason": "it stayed away"},
        {"event": "finished"},
    ]


def test_metric_that_is_not_a_number_is_written_as_null(record: RunRecord, tmp_path: Path) -> None:
    training = {"hospital-1": {"train-loss": math.nan, "num-examples": 0.0}}
    done = RoundRecord(1, training=training, mean={"train-loss": math.inf})

    note(record, done, 1)

    (event,) = events(tmp_path / "run")
    assert event["training"] == {"hospital-1": {"train-loss": None, "num-examples": 0.0}}
    assert event["mean"] == {"train-loss": None}
    assert read_checkpoint(tmp_path / "run" / LAST).about["mean"] == {"train-loss": None}


def test_last_weights_are_those_of_the_last_round_and_best_those_of_the_highest_selection_accuracy(
    record: RunRecord, tmp_path: Path
) -> None:
    for number, accuracy in enumerate((0.5, 0.75, 0.75, 0.25), start=1):
        others = {"val_accuracy": 1 - accuracy, "test_accuracy": 1 - accuracy}
        note(record, round_with(number, selection_accuracy=accuracy, **others), number)

    assert value(tmp_path / "run" / LAST) == 4
    assert value(tmp_path / "run" / BEST) == 2


def test_last_weights_are_the_best_where_nothing_may_be_chosen_by(record: RunRecord, tmp_path: Path) -> None:
    for number, accuracy in enumerate((0.5, 0.75, 0.25), start=1):
        note(record, round_with(number, val_accuracy=accuracy, test_accuracy=accuracy), number)

        assert value(tmp_path / "run" / LAST) == value(tmp_path / "run" / BEST) == number


def test_round_without_selection_accuracy_does_not_outlast_one_that_has_it(record: RunRecord, tmp_path: Path) -> None:
    note(record, RoundRecord(1), 1)
    note(record, round_with(2, selection_accuracy=0.0), 2)
    note(record, round_with(3, selection_accuracy=0.0), 3)

    assert value(tmp_path / "run" / BEST) == 2


def test_weights_say_which_round_they_are_from(record: RunRecord, tmp_path: Path) -> None:
    note(record, round_with(3, val_accuracy=0.5), 1)

    checkpoint = read_checkpoint(tmp_path / "run" / LAST, expected=SHAPE, encoder="descriptor")
    assert checkpoint.about == {"guarantee": "empirical", "round": 3, "mean": {"val-accuracy": 0.5}}


def test_folder_of_a_run_is_never_used_for_another(record: RunRecord, tmp_path: Path) -> None:
    note(record, RoundRecord(1), 1)
    record.note_finished()
    record.close()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    with pytest.raises(InvalidSetting, match="holds a run already, which is never overwritten"):
        RunRecord(tmp_path / "run", {})
    with pytest.raises(InvalidSetting, match="came to its end"):
        RunRecord(tmp_path / "run", {}, goes_on=True)

    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_run_that_was_cut_off_goes_on_in_its_folder_and_keeps_its_best_weights(
    record: RunRecord, tmp_path: Path
) -> None:
    note(record, round_with(1, selection_accuracy=0.75), 1)
    record.close()
    with (tmp_path / "run" / EVENTS).open("a") as file:
        file.write('{"event": "rou')

    with RunRecord(tmp_path / "run", {}, goes_on=True) as again:
        note(again, round_with(2, selection_accuracy=0.5), 2)
        again.note_finished()

    assert [event["event"] for event in events(tmp_path / "run")] == ["round", "resumed", "round", "finished"]
    assert (value(tmp_path / "run" / BEST), value(tmp_path / "run" / LAST)) == (1, 2)
    assert json.loads((tmp_path / "run" / ABOUT).read_text())["guarantee"] == "empirical"


def test_folder_without_a_run_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="holds no run to go on with"):
        RunRecord(tmp_path / "run", {}, goes_on=True)


def test_run_is_known_to_be_under_way_for_as_long_as_its_record_is_open(tmp_path: Path) -> None:
    assert not is_under_way(tmp_path / "run")
    with RunRecord(tmp_path / "run", {}):
        assert is_under_way(tmp_path / "run")
        with pytest.raises(InvalidSetting, match="is under way"):
            RunRecord(tmp_path / "run", {}, goes_on=True)

    assert not is_under_way(tmp_path / "run")


def test_curves_show_each_site_that_told_its_figures_and_their_mean(record: RunRecord, tmp_path: Path) -> None:
    for number, (first, second) in enumerate(((0.5, 0.6), (0.75, 0.7)), start=1):
        told = {"hospital-1": {"test-accuracy": first}, "<b>": {"test-accuracy": second, "val-accuracy": math.nan}}
        note(record, RoundRecord(number, evaluation=told), 1)

    drawn = ElementTree.fromstring((tmp_path / "run" / CURVES).read_text())  # noqa: S314 (our own)

    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"test accuracy", "hospital-1", "<b>", "mean over sites"} <= set(texts)
    assert "validation accuracy" not in texts
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 3
