from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fedmunkey.client.importing.manifest import Column, Row, parse_columns, read_manifest
from fedmunkey.common.errors import InvalidDataset, InvalidInput

HEADER = "path,label,record_id,subject_id"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "scans.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_are_numbered_as_in_a_spreadsheet(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\na.png, 1 ,record-1,subject-1\n\nb.png,0,record-2,subject-1\n")

    manifest = read_manifest(path, {})

    first = Row(2, "a.png", "1", "record-1", "subject-1", "", "")
    assert tuple(manifest.rows) == (first, Row(4, "b.png", "0", "record-2", "subject-1", "", ""))
    assert len(manifest) == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_may_come_in_any_order_and_by_usual_names(tmp_path: Path, delimiter: str) -> None:
    header = ["Split", "Patient ID", "RECORD-ID", "Consent", "age", "diagnosis", "File Name"]
    fields = ["test", "subject-1", "record-1", "permanent", "71", "benign", "a, b.png"]
    lines = [delimiter.join(header), delimiter.join(f'"{field}"' for field in fields)]

    (row,) = read_manifest(written(tmp_path, "\r\n".join(lines), "utf-8-sig"), {}).rows

    assert row == Row(2, "a, b.png", "benign", "record-1", "subject-1", "permanent", "test")


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "Datei;Befund;Aufnahme;Fall;label\na.png;gut;record-1;subject-1;9\n")
    columns = parse_columns(["path=Datei", "label=Befund", "record_id=Aufnahme", "subject_id=Fall"])

    assert next(read_manifest(path, columns).rows).label == "gut"


def test_row_with_another_number_of_fields_is_kept_apart(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, f"{HEADER}\na.png,1,record-1\nb.png,1,record-2,subject-2\n"), {})

    assert manifest.broken == (2,)
    assert [row.number for row in manifest.rows] == [3]
    assert len(manifest) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "manifest is empty"),
        ("\n\n", "manifest is empty"),
        (HEADER, "holds no record"),
        (f"{HEADER}\n,,,\n", "holds no record"),
        ("path,label,record_id\na,b,c\n", "called subject_id"),
        ("a.png,1,record-1,subject-1\n", "called path"),
        (f"{HEADER},patient\na,b,c,d,e\n", "'subject_id' and 'patient' may both be the column subject_id"),
        (
            f'{HEADER}\n"a.png,1,record-1,subject-1\n',
            "a quote that is not closed, or closed too early in the row of line 2",
        ),
    ],
)
def test_manifest_that_cannot_be_used_is_one_fault(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message) as fault:
        read_manifest(written(tmp_path, content), {})
    assert "subject-1" not in str(fault.value)


def test_manifest_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="no UTF-8 text"):
        read_manifest(written(tmp_path, f"{HEADER}\nMüller.png,1,a,b\n", "latin-1"), {})


def test_named_column_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="called 'Zustimmung'"):
        read_manifest(written(tmp_path, f"{HEADER}\na,b,c,d\n"), {Column.CONSENT: "Zustimmung"})


def test_manifest_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="cannot be read"):
        read_manifest(tmp_path / "absent.csv", {})


@pytest.mark.parametrize("word", ["label", "label=", "age=Alter"])
def test_column_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(InvalidInput, match="COLUMN=HEADER"):
        parse_columns([word])


def test_separator_at_the_end_of_every_row_does_not_matter(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, f"{HEADER}\na.png,1,r-1,s-1,\nb.png,0,r-2,s-2,\n"), {})

    assert [row.subject_id for row in manifest.rows] == ["s-1", "s-2"]
    assert manifest.broken == ()


def test_separator_at_the_end_of_some_rows_breaks_these(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, f"{HEADER}\na.png,1,r-1,s-1,\nb.png,0,r-2,s-2\n"), {})

    assert (manifest.broken, manifest.count) == ((2,), 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}\na.png,1,r,s,x\nb.png,1,r,s,y\n".encode(), "header has 4 fields and no row has as many .but 5."),
        (HEADER.encode("utf-16"), "is UTF-16 text"),
        (HEADER.encode("utf-16-le"), "is UTF-16 text"),
        (b"PK\x03\x04" + bytes(10), "UTF-16 text, or none at all"),
        (b"PK\x03\x04" + b"x" * 2000, "is a spreadsheet"),
        (f"{HEADER}\na.png,1,r-1,s-1\nMü.png,1,a,b\n".encode("latin-1"), "no UTF-8 text in line 3"),
        (f'{HEADER}\na.png,1,r-1,s-1\ni.png,1,r-2,"s-2" x\n'.encode(), "closed too early in the row of line 3"),
        (f'{HEADER}\na.png,1,"r\n-1",s-1\ni.png,1,"r-2,s-2\nb,1,r,s\n'.encode(), "in the row of line 4"),
    ],
)
def test_fault_of_a_manifest_is_named_by_its_cause(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "scans.csv"
    path.write_bytes(content)

    with pytest.raises(InvalidDataset, match=message) as fault:
        read_manifest(path, {})
    assert "s-2" not in str(fault.value)


def test_manifest_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(f"{HEADER}\na.png,1,r-1,s-1\n",))
    writer.start()
    manifest = read_manifest(pipe, {})
    writer.join()

    assert [row.record_id for row in manifest.rows] == [row.record_id for row in manifest.rows] == ["r-1"]
