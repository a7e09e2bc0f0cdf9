"""The page that a dry run leaves: what the model will see, for its owner alone, gone before a deletion is answered."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.importing.contact_sheet import _PICTURE, _SHOWN, ContactSheet, _decoded
from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.pictures import Choices, read_picture
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, Records
from fedmunkey.common.settings.settings import ImageShape
from fedmunkey.server.deletions.ledger_service import LedgerService

from .conftest import SITE, Run
from .test_import import ROWS, Import, folder, images, import_scans, manifest, scans, write_manifest

__all__ = ["folder", "images", "import_scans", "manifest"]
DRY = ("--dry-run", "--contact-sheet")


def test_page_shows_what_the_model_will_see(import_scans: Import, images: Path, folder: SiteFolder) -> None:
    shown = import_scans(*DRY, "--json").json

    page = folder.contact_sheet.read_text()
    assert shown["contact_sheet"] == str(folder.contact_sheet)
    assert {path.name for path in folder.path.iterdir()} == {"contact-sheet.html"}
    assert folder.contact_sheet.stat().st_mode & 0o777 == 0o600
    assert folder.path.stat().st_mode & 0o777 == 0o700
    found = {_decoded(each[1]).tobytes() for each in _PICTURE.finditer(page)}
    paths = [images / row["path"] for row in scans()]
    assert found == {fit(read_picture(path, Choices()), ImageShape((1, 8, 8))).tobytes() for path in paths}
    assert [int(row) for row in re.findall(r"row (\d+)<", page.split("<h2>")[1])] == [2, 3, 6, 7, 10, 11]
    assert page.count("<svg") == 2
    assert "patient-" not in page
    assert "scan-" not in page


def test_page_needs_a_dry_run(import_scans: Import, folder: SiteFolder) -> None:
    assert "add --dry-run" in import_scans("--contact-sheet").error
    assert not folder.path.exists()


def test_next_import_removes_the_page(import_scans: Import, folder: SiteFolder) -> None:
    import_scans(*DRY)
    import_scans("--dry-run")
    assert folder.contact_sheet.exists()

    assert import_scans().code == 0
    assert not folder.contact_sheet.exists()


def test_deletion_removes_the_page_before_it_is_answered(
    run: Run, import_scans: Import, images: Path, folder: SiteFolder, secret: Path, ledger: LedgerService, service: str
) -> None:
    import_scans()
    import_scans(*DRY, manifest=write_manifest(images, [scans(20)[14]], "more.csv"))
    assert folder.contact_sheet.exists()
    reference = FederationSecret.read(secret).reference("scan-0")
    ledger.submit(DeletionRequest("request-1", OFFICER, Records(frozenset({reference}), SITE)))

    ended = run("catch-up", "--site-dir", folder.path, "--service", service)

    assert ended.code == 0, ended.err
    assert not folder.contact_sheet.exists()


def test_deleted_picture_is_not_shown_under_another_id(
    run: Run, import_scans: Import, images: Path, folder: SiteFolder, secret: Path, ledger: LedgerService, service: str
) -> None:
    import_scans()
    reference = FederationSecret.read(secret).reference("scan-0")
    ledger.submit(DeletionRequest("request-1", OFFICER, Records(frozenset({reference}), SITE)))
    run("catch-up", "--site-dir", folder.path, "--service", service)
    again = [scans()[0] | {"record_id": "new", "subject_id": "somebody"}, scans(20)[14]]

    shown = import_scans(*DRY, "--json", manifest=write_manifest(images, again)).document

    assert [(refusal["row"], refusal["reason"]) for refusal in shown["refusals"]] == [(2, "deleted")]
    assert len(_PICTURE.findall(folder.contact_sheet.read_text())) == 1


def test_copy_of_a_page_is_found_by_a_check_of_an_erasure(
    run: Run,
    import_scans: Import,
    folder: SiteFolder,
    secret: Path,
    tmp_path: Path,
    ledger: LedgerService,
    service: str,
) -> None:
    import_scans(*DRY)
    (tmp_path / "desk").mkdir()
    copy = Path(shutil.copy(folder.contact_sheet, tmp_path / "desk" / "to show.html"))
    import_scans()
    reference = FederationSecret.read(secret).reference("scan-0")
    ledger.submit(DeletionRequest("request-1", OFFICER, Records(frozenset({reference}), SITE)))
    run("catch-up", "--site-dir", folder.path, "--service", service)

    checked = run("verify-erasure", 1, "--site-dir", folder.path, "--also", copy.parent)
    copy.unlink()

    assert checked.code == 1
    assert f"{copy} shows 1 picture of deleted records" in checked.out
    assert run("verify-erasure", 1, "--site-dir", folder.path, "--also", copy.parent).code == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_some_of_many_pictures_are_shown_and_all_are_counted(tmp_path: Path, channels: int) -> None:
    random = np.random.default_rng(0)
    sheet = ContactSheet("<site>", ("benign & more",))
    pictures = random.integers(0, 256, (200, channels, 8, 8), dtype=np.uint8)
    pictures[3] = 7
    for row, image in enumerate(pictures, 2):
        sheet.add(row, 0, image)

    page = sheet.write(SiteFolder(tmp_path / SITE)).read_text()

    shown = [_decoded(each[1]) for each in _PICTURE.finditer(page)]
    assert len(shown) == _SHOWN
    assert {image.tobytes() for image in shown} <= {image.tobytes() for image in pictures}
    assert "<h2>benign &amp; more</h2><p>200 pictures, 1 of a single grey level; 24 shown</p>" in page
    assert "<site>" not in page


def test_page_of_a_site_that_would_add_nothing_has_no_picture(import_scans: Import, folder: SiteFolder) -> None:
    import_scans()

    assert import_scans(*DRY, "--json").json["known"] == ROWS
    assert not _PICTURE.findall(folder.contact_sheet.read_text())


def test_flat_picture_is_decoded_as_it_was(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    sheet = ContactSheet(SITE, ("only",))
    sheet.add(2, 0, fit(read_picture(tmp_path / "black.png", Choices()), ImageShape((1, 8, 8))))

    (found,) = _PICTURE.finditer(sheet.write(SiteFolder(tmp_path / SITE)).read_text())
    assert _decoded(found[1]).tolist() == np.zeros((1, 8, 8)).tolist()
