from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedmunkey.client.importing.refusals import Reason, RefusedRow, check_report, count_reasons, write_report
from fedmunkey.common.errors import InvalidInput

GONE, EMPTY = "there is no such file", "the file is empty"


def test_reasons_are_counted_and_the_most_frequent_comes_first() -> None:
    refusals = [RefusedRow(9, Reason.FILE, GONE), RefusedRow(3, Reason.FILE, EMPTY), RefusedRow(2, Reason.FILE, GONE)]

    assert list(count_reasons(refusals).items()) == [((Reason.FILE, GONE), [2, 9]), ((Reason.FILE, EMPTY), [3])]


def test_report_lists_rows_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "refused.csv"
    before = os.umask(0)
    try:
        write_report(path, [RefusedRow(9, Reason.FILE, GONE), RefusedRow(3, Reason.LABEL, 'neither, "nor"')])
    finally:
        os.umask(before)

    assert path.read_text().splitlines() == ["row,reason,detail", '3,label,"neither, ""nor"""', f"9,file,{GONE}"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["refused.csv"]


def test_report_may_replace_a_report_and_nothing_else(tmp_path: Path) -> None:
    manifest, other, report = (tmp_path / name for name in ("scans.csv", "notes.txt", "refused.csv"))
    manifest.write_text("path,label\n")
    other.write_text("something dear to somebody\n")
    write_report(report, [])

    check_report(report, manifest)
    check_report(tmp_path / "absent.csv", manifest)
    for path in (manifest, other, tmp_path):
        with pytest.raises(InvalidInput, match="something else than a report"):
            check_report(path, manifest)
    with pytest.raises(InvalidInput, match="folder is missing"):
        check_report(tmp_path / "absent" / "refused.csv", manifest)
