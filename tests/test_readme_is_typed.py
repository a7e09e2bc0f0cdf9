"""The first steps of the README, typed from empty folders; `make handbook` types the handbook."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handbook.typing_pages import type_page

ROOT = Path(__file__).parents[1]


@pytest.mark.processes
@pytest.mark.flower
def test_every_step_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "typed"
    folder.mkdir()

    typed = type_page(ROOT / "README.md", "SQLite", folder, print)

    assert typed.faults == []
    assert typed.commands >= 30
