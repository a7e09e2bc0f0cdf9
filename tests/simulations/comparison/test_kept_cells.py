"""Finished cells are found again, and only by those who ask the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.simulations.comparison.cell import Outcome
from fedmunkey.simulations.comparison.kept_cells import KeptCells
from tests.simulations.comparison.made_up import outcome

CELL: dict[str, Any] = {"data": {"name": "cells", "digest": "a1"}, "family": "plain-vit", "seed": 3, "methods": ["ssd"]}


def test_cell_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept = KeptCells(tmp_path / "cells", Outcome)
    found = [outcome("ssd", 3, after=81.5), outcome("scrub", 3, after=math.nan)]

    kept.keep(CELL, found)
    read = KeptCells(tmp_path / "cells", Outcome).read(CELL)

    assert read is not None
    assert [one.to_json() for one in read] == [one.to_json() for one in found]
    assert math.isnan(read[1].after.test_accuracy)
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".json"]


def test_single_records_confidences_are_not_kept(tmp_path: Path) -> None:
    KeptCells(tmp_path, Outcome).keep(CELL, [outcome("ssd", 3)])

    (file,) = tmp_path.iterdir()
    assert "confidence" not in file.read_text()


@pytest.mark.parametrize("part", [{"seed": 4}, {"data": {"name": "cells", "digest": "b2"}}, {"methods": ["scrub"]}])
def test_another_cell_is_another_file(tmp_path: Path, part: dict[str, Any]) -> None:
    kept = KeptCells(tmp_path, Outcome)
    kept.keep(CELL, [outcome("ssd", 3)])

    assert kept.read({**CELL, **part}) is None


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}", '{"outcomes": [1]}', '{"outcomes": [{"method": "ssd"}]}'])
def test_cell_that_cannot_be_read_is_made_anew(tmp_path: Path, broken: str) -> None:
    kept = KeptCells(tmp_path, Outcome)
    kept.keep(CELL, [outcome("ssd", 3)])
    (file,) = tmp_path.iterdir()
    file.write_text(broken)

    assert kept.read(CELL) is None
