"""All files of a report are written, or none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.errors import InvalidInput
from fedmunkey.simulations.reporting.files import write_pages, write_report


def test_report_is_written_as_json_html_and_markdown_and_pages_are_the_same_when_made_again(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    paths = write_report(document, tmp_path / "runs" / "first")
    again = write_pages(json.loads(paths["json"].read_text(encoding="utf-8")), tmp_path / "second")

    names = {kind: path.name for kind, path in paths.items()}
    assert names == {"json": "report.json", "html": "report.html", "markdown": "report.md"}
    assert json.loads(paths["json"].read_text(encoding="utf-8")) == document
    assert paths["html"].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths["markdown"].read_text(encoding="utf-8").startswith("# ")
    assert set(again) == {"html", "markdown"}
    for kind, path in again.items():
        assert path.read_bytes() == paths[kind].read_bytes()


def test_nothing_is_written_of_a_broken_document(tmp_path: Path, document: dict[str, Any]) -> None:
    document["settings"]["epsilon"] = math.inf

    with pytest.raises(InvalidInput, match=r"settings\.epsilon: inf"):
        write_report(document, tmp_path / "run")

    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_named(tmp_path: Path, run: dict[str, Any]) -> None:
    (tmp_path / "run").write_text("a file")

    with pytest.raises(InvalidInput, match=r"run cannot be written to .*--output"):
        write_report(run, tmp_path / "run")
