"""`munkey-sim report` makes the pages again, and says in one line why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmunkey.common.programs import command_line
from fedmunkey.simulations.reporting.command import report
from fedmunkey.simulations.reporting.files import write_report


def typed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    app = command_line.application("Reports.")
    app.command()(report)
    monkeypatch.setattr("sys.argv", ["munkey-sim", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command_line.run(app)
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_pages_are_made_again_beside_the_file_or_elsewhere(
    tmp_path: Path, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_report(run, tmp_path)
    page = paths["html"].read_bytes()
    paths["html"].unlink()

    assert typed(monkeypatch, paths["json"]) == 0
    assert typed(monkeypatch, paths["json"], "--output", tmp_path / "pages") == 0

    assert paths["html"].read_bytes() == (tmp_path / "pages" / "report.html").read_bytes() == page
    assert not (tmp_path / "pages" / "report.json").exists()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "pages" / "report.md")


def test_file_that_is_no_report_gets_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text('{"kind": "audit"}')

    assert typed(monkeypatch, tmp_path / "report.json", "--output", tmp_path / "pages") == 2

    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'report.json'}: the document: format is missing")
    assert error.count("\n") == 1
    assert not (tmp_path / "pages").exists()
