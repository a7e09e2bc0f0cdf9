"""`munkey-sim recipes`: the table in docs/recipes.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmunkey.client.dataset import Dataset, Split
from fedmunkey.common.errors import EXIT_CODE
from fedmunkey.common.settings import Settings
from fedmunkey.common.torchvision_import import import_torchvision
from fedmunkey.simulations.cli import main
from fedmunkey.simulations.recipes import RECIPES

LINEAR = "linear, as by default"


@pytest.fixture
def words(few_digits: Dataset, tmp_path: Path) -> list[str]:
    """What the command needs: few digits, and an encoder's weights."""
    arrays: dict[str, Any] = {}
    for split in Split:
        records = few_digits.split(split)
        arrays |= {f"{split}_images": records.images[:, 0], f"{split}_labels": records.labels[:, None]}
    np.savez(tmp_path / "few.npz", **arrays)
    torch.save(import_torchvision().models.squeezenet1_1(weights=None).state_dict(), tmp_path / "weights.pth")
    data = ["--data", str(tmp_path / "few.npz"), "--hospitals", "2", "--seeds", "1"]
    return [*data, "--encoder", "squeezenet1_1", "--weights", str(tmp_path / "weights.pth")]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["munkey-sim", "recipes", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_made_of_settings(name: str) -> None:
    assert Settings.parse(RECIPES[name]) != Settings() or name == LINEAR


def test_recipes_that_are_asked_for_are_tried_and_shown_as_a_table(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, *words, "--only", LINEAR)

    heading, _, row = capsys.readouterr().out.splitlines()
    assert code == 0
    assert heading == "| recipe | few: TA | gap (by chance) |"
    assert re.fullmatch(rf"\| {LINEAR} \| \d+\.\d \| \d+\.\d\d \(\d+\.\d\d\) \|", row)


def test_unknown_recipe_is_refused_before_anything_is_read(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, *words, "--only", "sourdough")

    captured = capsys.readouterr()
    assert (code, captured.out) == (EXIT_CODE, "")
    assert captured.err.startswith("error: --only sourdough: is no recipe; choose from linear, as by default; ")
