"""Pictures are drawn from whatever a run left, complete or not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmunkey.simulations.deletions import CarriedOut
from fedmunkey.simulations.measurement import Measurement
from fedmunkey.simulations.plan import DeletionKind, PlannedDeletion, ResolvedDeletion
from fedmunkey.simulations.plots import plot_accuracy, plot_forgotten

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def collect(self: Figure, *words: Any, **options: Any) -> None:
        figures.append(self)
        save(self, *words, **options)

    monkeypatch.setattr(Figure, "savefig", collect)
    return figures


def document(*accuracies: dict[str, float | None]) -> dict[str, Any]:
    rounds = []
    for number, found in enumerate(accuracies, start=1):
        known = [value for value in found.values() if value is not None]
        mean = {"test-accuracy": sum(known) / len(known)} if known else {}
        evaluation = {site: {"test-accuracy": value} for site, value in found.items()}
        rounds.append({"number": number, "evaluation": evaluation, "mean": mean})
    return {
        "rounds": rounds,
        "hospitals": [{"name": "hospital-1"}, {"name": "hospital-2"}],
        "deletions": [{"round": 2, "plan": "records:5%@2"}],
    }


def carried_out(round_number: int) -> CarriedOut:
    planned = PlannedDeletion(DeletionKind.RECORDS, round_number, count=2)
    before, after = (Measurement(90, 90, 90, 50, 90, pair) for pair in ((0.9, 0.8), (0.2, 0.1)))
    return CarriedOut(ResolvedDeletion(planned, (np.arange(2),)), (), before, after)


def size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(PNG)
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
        for line in axes.get_lines()
    }


def test_accuracy_of_every_hospital_and_their_mean_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    found = document({"hospital-1": 0.5, "hospital-2": 0.7}, {"hospital-1": 0.6, "hospital-2": 1.0})

    plot_accuracy(found, tmp_path / "accuracy.png")

    assert size(tmp_path / "accuracy.png") == (960, 540)
    curves = lines(drawn[0].axes[0])
    assert curves["hospital-1"] == [(1, 50), (2, 60)]
    assert curves["hospital-2"] == [(1, 70), (2, 100)]
    assert np.array(curves["mean"]) == pytest.approx(np.array([[1, 60], [2, 80]]))
    assert [label.get_text().strip() for label in drawn[0].axes[0].texts] == ["records:5%@2"]


def test_hospital_without_records_left_has_a_curve_that_ends(tmp_path: Path, drawn: list[Figure]) -> None:
    found = document({"hospital-1": 0.5, "hospital-2": 0.7}, {"hospital-1": 0.6, "hospital-2": None})

    plot_accuracy(found, tmp_path / "accuracy.png")

    assert lines(drawn[0].axes[0])["hospital-2"] == [(1, 70)]


def test_run_without_any_evaluation_is_drawn_too(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_accuracy(document({}, {}), tmp_path / "accuracy.png")

    assert size(tmp_path / "accuracy.png") == (960, 540)
    assert lines(drawn[0].axes[0])["mean"] == []


def test_every_deletion_has_a_picture_of_its_own(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_forgotten([carried_out(2), carried_out(3)], tmp_path / "forgotten.png")

    assert size(tmp_path / "forgotten.png") == (960, 420)
    assert [axes.get_title() for axes in drawn[0].axes] == ["records:2@2", "records:2@3"]
    before, after = drawn[0].axes[0].containers
    heights = [[bar.get_height() for bar in container] for container in (before, after)]
    assert [int(sum(found)) for found in heights] == [2, 2]
    assert heights[0] != heights[1]


def test_run_without_deletions_leaves_an_empty_picture(tmp_path: Path) -> None:
    plot_forgotten([], tmp_path / "forgotten.png")

    assert size(tmp_path / "forgotten.png") == (480, 420)
