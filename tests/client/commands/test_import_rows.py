"""What `munkey-client import` makes of rows that mean something else than they say, and of pictures seen before."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.records.dataset import Split
from fedmunkey.client.site import SiteFolder
from tests.client.importing.dicom_files import write_dicom

from .test_import import ROWS, Import, folder, held, images, import_scans, manifest, scans, write_manifest

__all__ = ["folder", "images", "import_scans", "manifest"]


def rows_of(document: Any, notice: str) -> list[int]:
    return next((list(each["rows"]) for each in document["notices"] if each["notice"] == notice), [])


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"subject_id": "unknown"}, "subject_id says that it is not known"),
        ({"subject_id": "nan"}, "subject_id says that it is not known"),
        ({"record_id": "#N/A"}, "record_id says that it is not known"),
        ({"label": "NA"}, "the label says that there is none"),
        ({"record_id": "1.23457E+12"}, "record_id is a rounded number"),
        ({"subject_id": "1,2E+10"}, "subject_id is a rounded number"),
    ],
)
def test_row_that_says_nothing_is_refused(
    import_scans: Import, images: Path, change: dict[str, str], detail: str
) -> None:
    rows = scans()
    rows[3] |= change

    shown = import_scans("--json", manifest=write_manifest(images, rows)).document

    assert (shown["added"], [refusal["row"] for refusal in shown["refusals"]]) == (ROWS - 1, [5])
    assert detail in shown["refusals"][0]["detail"]


def test_ids_of_a_spreadsheet_are_those_on_paper(import_scans: Import, images: Path, folder: SiteFolder) -> None:
    rows = scans()
    for number, row in enumerate(rows):
        row |= {"record_id": f"{1000 + number}.0", "subject_id": f"{70 + number // 2}.0"}
    rows[4]["subject_id"] = "72"
    apart = unicodedata.normalize("NFD", "Müller")
    rows[11]["record_id"] = apart
    shown = import_scans("--json", manifest=write_manifest(images, rows)).json

    assert rows_of(shown, "plain-ids") == list(range(2, 14))
    assert set(held(folder)) == {str(1000 + number) for number in range(11)} | {unicodedata.normalize("NFC", apart)}
    assert {subject for subject, _ in held(folder).values()} == {str(70 + number) for number in range(6)}
    assert import_scans("--json").json["known"] == ROWS


def test_id_that_the_site_holds_as_it_is_written_stays(
    import_scans: Import, images: Path, folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"record_id": f"{number}.0", "subject_id": f"{number // 2}.0"} for number, row in enumerate(scans())]
    written = write_manifest(images, rows)
    with monkeypatch.context() as before:
        before.setattr("fedmunkey.client.importing.planning.plain_id", lambda text: text)
        import_scans(manifest=written)

    shown = import_scans("--json", manifest=written).json

    assert (shown["known"], shown["added"]) == (ROWS, 0)
    assert "0.0" in held(folder)


def test_subjects_that_look_alike_are_said(import_scans: Import, images: Path) -> None:
    rows = scans()
    rows[0]["subject_id"], rows[1]["subject_id"] = "P7", "p 7"
    rows[2]["subject_id"], rows[3]["subject_id"] = "0042", "42"

    shown = import_scans("--json", manifest=write_manifest(images, rows)).json

    assert rows_of(shown, "alike-subjects") == [2, 3, 4, 5]


def test_one_picture_as_two_records_is_said(import_scans: Import, images: Path) -> None:
    rows = scans()
    rows[1]["path"] = rows[0]["path"]
    rows[11]["path"] = rows[2]["path"]

    shown = import_scans("--json", manifest=write_manifest(images, rows)).json

    assert rows_of(shown, "same-picture") == [2, 3]
    assert rows_of(shown, "picture-in-two-splits") == [4, 13]
    assert shown["added"] == ROWS


def test_picture_that_the_site_holds_under_another_id_is_said(import_scans: Import, images: Path) -> None:
    import_scans()
    again = scans()[0] | {"record_id": "scan-0-again"}

    assert rows_of(import_scans("--json", manifest=write_manifest(images, [again])).json, "picture-held") == [2]


def test_changed_picture_of_a_known_record_is_refused(import_scans: Import, images: Path, folder: SiteFolder) -> None:
    import_scans()
    before = folder.key_store.read_bytes()
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(images / scans()[4]["path"])
    (images / scans()[5]["path"]).unlink()

    shown = import_scans("--json").document

    assert [(refusal["row"], refusal["reason"]) for refusal in shown["refusals"]] == [(6, "differs")]
    assert "with another picture" in shown["refusals"][0]["detail"]
    assert shown["known"] == ROWS - 1
    assert folder.key_store.read_bytes() == before


def test_pictures_of_one_grey_level_are_counted(import_scans: Import, images: Path) -> None:
    for number in (3, 7):
        Image.fromarray(np.zeros((20, 24), np.uint8)).save(images / scans()[number]["path"])

    ended = import_scans("--dry-run")

    line = next(line for line in ended.out.splitlines() if line.startswith("the picture has a single grey level"))
    assert line.split()[-3:] == ["5,", "9", "2"]


def test_depth_of_pictures_is_chosen_once(import_scans: Import, images: Path) -> None:
    rows = scans()
    for row in rows:
        deep = np.random.default_rng(1).integers(0, 4096, (20, 24), dtype=np.uint16)
        Image.fromarray(deep).save(images / row["path"], format="PNG")

    refused = import_scans("--json", "--dry-run").document
    chosen = import_scans("--bits", "12", "--json").json

    assert refused["refused"] == ROWS
    assert "say with --bits" in refused["refusals"][0]["detail"]
    assert chosen["added"] == ROWS
    assert import_scans("--json").json["known"] == ROWS
    assert "the site takes --bits 12" in import_scans("--bits", "16").error


def test_whole_manifest_is_refused_by_the_line_of_a_bad_quote(import_scans: Import, images: Path) -> None:
    path = write_manifest(images, scans())
    path.write_text(path.read_text().replace("scan-3,patient-1", 'scan-3,"patient-1" x'))

    assert "in the row of line 5" in import_scans().error


def test_frames_and_slices_of_one_file_are_records_of_one_subject(
    import_scans: Import, images: Path, folder: SiteFolder
) -> None:
    random = np.random.default_rng(3)
    frames = random.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    write_dicom(images / "film.dcm", frames, frames=3)
    nibabel.save(nibabel.Nifti1Image(random.integers(0, 256, (8, 8, 4), dtype=np.uint8), np.eye(4)), images / "v.nii")
    lines = ["path,label,record_id,subject_id,Bild,Schicht"]
    lines += [f"film.dcm,benign,film-{number},patient-7,{number}," for number in (1, 2, 3)]
    lines += [f"v.nii,malignant,slice-{place},patient-8,,{place}" for place in (0, 1, "middle", "x", 9)]
    path = images / "several.csv"
    path.write_text("\n".join(lines))

    shown = import_scans("--json", "--column", "frame=Bild", "--column", "slice=Schicht", manifest=path).document

    assert (shown["added"], [(each["row"], each["detail"]) for each in shown["refusals"]]) == (
        6,
        [
            (8, "frame or slice is neither middle nor the number of one"),
            (9, "the NIfTI file holds 4 slices, fewer than --slice asks for"),
        ],
    )
    with folder.open() as store:
        entries = np.concatenate([store.records.read_entries(split)[0] for split in Split])
        found = dict(zip(dict(store.records.read_ids(entries)), store.records.read_inputs(entries), strict=True))
    assert {found[f"film-{number}"].numpy().tobytes() for number in (1, 2, 3)} == {each.tobytes() for each in frames}
    assert set(held(folder).values()) == {
        ("patient-7", held(folder)["film-1"][1]),
        ("patient-8", held(folder)["slice-0"][1]),
    }
