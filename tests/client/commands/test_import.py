from __future__ import annotations

import csv
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from fedmunkey.client.importing import importer
from fedmunkey.client.importing.pictures import open_picture
from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.records import dataset
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.client.site import SiteFolder
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.deletions.words import OFFICER, DeletionOrder, DeletionRequest, Records, Subject, Target
from tests.patience import PATIENCE

from .conftest import OTHER, SITE, STORE_FILES, Ended, Run

ROWS = 12
HEADER = ("path", "label", "record_id", "subject_id", "consent", "split")
CLASSES = ["--class", "benign", "--class", "malignant"]
Import = Callable[..., Ended]
Row = Mapping[str, Any]


def scans(count: int = ROWS) -> list[dict[str, Any]]:
    """Return rows of scans, two of each patient."""
    return [
        {
            "path": f"scan-{row}.{'png' if row % 2 else 'jpg'}",
            "label": ("benign", "malignant")[row // 2 % 2],
            "record_id": f"scan-{row}",
            "subject_id": f"patient-{row // 2}",
            "consent": "",
            "split": "train" if row < count - 4 else "test",
        }
        for row in range(count)
    ]


def write_manifest(folder: Path, rows: list[dict[str, Any]], name: str = "scans.csv") -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the image of each scan."""
    random = np.random.default_rng(0)
    for row in scans(80):
        Image.fromarray(random.integers(0, 256, (20, 24), dtype=np.uint8)).save(tmp_path / row["path"])
    return tmp_path


@pytest.fixture
def manifest(images: Path) -> Path:
    return write_manifest(images, scans())


@pytest.fixture
def import_scans(run: Run, tmp_path: Path, secret: Path, manifest: Path) -> Import:
    """Return a function that imports a manifest, by default that of the scans, with more words."""

    def type_it(*words: object, manifest: Path = manifest) -> Ended:
        site = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", secret]
        first = ["--image-shape", "1x8x8", *CLASSES]
        return run("import", manifest, *site, *([] if (tmp_path / SITE / "pictures.json").exists() else first), *words)

    return type_it


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return SiteFolder(tmp_path / SITE)


def held(folder: SiteFolder) -> dict[str, tuple[str, Split]]:
    """Return subject and split of each record of a site."""
    found = {}
    with folder.open() as store:
        for split in Split:
            entries, _ = store.records.read_entries(split)
            found.update({record: (subject, split) for record, subject in store.records.read_ids(entries)})
    return found


def delete(folder: SiteFolder, target: Target) -> None:
    with folder.open() as store:
        store.orders.apply(DeletionOrder(1, SITE, DeletionRequest("request-1", OFFICER, target)))


def test_first_import_makes_the_sites_folder(import_scans: Import, folder: SiteFolder) -> None:
    shown = import_scans("--json").json

    assert (shown["site"], shown["dry_run"], shown["image_shape"]) == (SITE, False, "1x8x8")
    assert [shown[number] for number in ("rows", "acceptable", "added", "known", "refused")] == [ROWS] * 3 + [0, 0]
    assert (shown["reasons"], shown["refusals"]) == ({}, [])
    assert shown["classes"] == ["benign", "malignant"]
    assert shown["records"] == {"train": ROWS - 4, "val": 0, "test": 4}
    assert {path.name for path in folder.path.iterdir()} == {*STORE_FILES, "pictures.json"}
    assert {path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert held(folder) == {row["record_id"]: (row["subject_id"], Split(row["split"])) for row in scans()}
    with folder.open() as store:
        assert store.records.count_labels() == {0: 4, 1: 4}


def test_imported_images_are_those_of_the_files(import_scans: Import, folder: SiteFolder, images: Path) -> None:
    import_scans()

    with folder.open() as store:
        entries, _ = store.records.read_entries(Split.TRAIN)
        inputs = store.records.read_inputs(entries).numpy()
    for row, values in zip(scans(), inputs, strict=False):
        with Image.open(images / row["path"]) as image:
            expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(values[0], expected)


def test_same_import_again_adds_nothing(import_scans: Import, folder: SiteFolder) -> None:
    import_scans()
    before = folder.key_store.read_bytes()

    shown = import_scans("--json").json

    assert (shown["added"], shown["known"]) == (0, ROWS)
    assert folder.key_store.read_bytes() == before


def test_dry_run_reads_everything_and_writes_nothing(import_scans: Import, folder: SiteFolder, images: Path) -> None:
    (images / "scan-3.png").write_bytes(b"no picture")
    before = sorted(path.name for path in images.iterdir())

    ended = import_scans("--dry-run", "--json")

    shown = ended.document
    assert ended.code == 1
    assert (shown["added"], shown["acceptable"], shown["refused"]) == (0, ROWS - 1, 1)
    assert sorted(path.name for path in images.iterdir()) == before
    assert not folder.path.exists()


def test_dry_run_leaves_an_existing_site_as_it_is(import_scans: Import, folder: SiteFolder, images: Path) -> None:
    import_scans()
    before = {path: path.read_bytes() for path in folder.path.iterdir()}
    more = write_manifest(images, scans() + scans(20)[ROWS:], "more.csv")

    shown = import_scans("--dry-run", "--json", manifest=more).json

    assert (shown["acceptable"], shown["known"]) == (20, ROWS)
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


_STOPPING = """
import sys
from fedmunkey.client.cli import main
from fedmunkey.client.importing import importer

read = importer.open_picture

def stopping(path, choices):
    if path.stem == "scan-70":
        print("reached", flush=True)
        sys.stdin.read()
    return read(path, choices)

importer.open_picture = stopping
main()
"""


@pytest.mark.processes
def test_killed_import_is_resumed(import_scans: Import, folder: SiteFolder, images: Path, secret: Path) -> None:
    many = write_manifest(images, scans(80))
    words = ["import", many, "--site-dir", folder.path, "--site", SITE, "--secret", secret, "--image-shape", "1x8x8"]
    command = [sys.executable, "-c", _STOPPING, *map(str, [*words, *CLASSES])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:  # noqa: S603
        assert killed.stdout is not None
        late = threading.Timer(180, killed.kill)
        late.start()
        reached = killed.stdout.readline()
        late.cancel()
        killed.kill()
        killed.wait(PATIENCE)
    kept = set(held(folder))
    shown = import_scans("--json", manifest=many).json

    assert reached == b"reached\n"
    # No more than a batch of records is in memory.
    assert kept == {f"scan-{row}" for row in range(64)}
    assert (shown["known"], shown["added"]) == (64, 16)
    assert len(held(folder)) == 80
    assert {path.name for path in folder.path.iterdir()} == {*STORE_FILES, "pictures.json"}


def test_lists_that_an_interruption_left_out_are_made_by_the_next_import(
    import_scans: Import, folder: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedmunkey.client.importing.site_enrolment.list_arrivals", interrupted)
        import_scans("--guarantee", "certified")
    with folder.open() as store:
        unlisted = len(store.records.read_unlisted())
    import_scans()

    assert unlisted == ROWS
    with folder.open() as store:
        assert len(store.records.read_unlisted()) == 0


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"path": "absent.png"}, "file", "no such file"),
        ({"path": "."}, "file", "a folder"),
        ({"path": "empty.png"}, "file", "is empty"),
        ({"path": "text.png"}, "file", "no PNG, JPEG, DICOM or NIfTI"),
        ({"path": "cut.png"}, "file", "damaged"),
        ({"path": ""}, "empty", "is empty"),
        ({"subject_id": " "}, "empty", "is empty"),
        ({"record_id": "scan\x07"}, "identifier", "cannot be printed"),
        ({"label": "unclear"}, "label", "neither a class"),
        ({"label": "2"}, "label", "neither a class"),
        ({"consent": "perhaps"}, "consent", "none of revocable, permanent"),
        ({"split": "holdout"}, "split", "not all rows of this subject"),
        ({"split": "holdout", "subject_id": "patient-99"}, "split", "none of train, val, test"),
        ({"split": "test"}, "split", "not all rows of this subject"),
        ({"record_id": "scan-0", "subject_id": "patient-0"}, "duplicate", "that of row 2"),
        ({"record_id": "scan-0", "subject_id": "patient-99"}, "subject", "another subject"),
    ],
)
def test_faulty_row_is_refused_alone(
    import_scans: Import, folder: SiteFolder, images: Path, change: Row, reason: str, words: str
) -> None:
    (images / "empty.png").touch()
    (images / "text.png").write_text("patient-1")
    (images / "cut.png").write_bytes((images / "scan-1.png").read_bytes()[:80])
    rows = scans()
    rows[5] |= change
    ended = import_scans("--json", manifest=write_manifest(images, rows))

    shown = ended.document
    refusals = {refusal["row"]: refusal for refusal in shown["refusals"]}
    # The row of the other image of the patient, or of the other record of that name, may be at fault as well.
    expected = {7}
    if words.startswith("not all"):
        expected.add(6)
    if reason == "subject":
        expected.add(2)
    assert ended.code == 1
    assert set(refusals) == expected
    assert refusals[7]["reason"] == reason
    assert words in refusals[7]["detail"]
    assert shown["added"] == ROWS - len(expected)
    assert len(held(folder)) == ROWS - len(expected)
    for secret in ("scan-", "patient-", "absent", "unclear"):
        assert secret not in ended.out + ended.err


def test_row_with_a_field_too_few_is_refused_alone(import_scans: Import, manifest: Path) -> None:
    lines = manifest.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0]
    manifest.write_text("\n".join(lines))

    (refused,) = import_scans("--json").document["refusals"]
    assert refused == {"row": 4, "reason": "fields", "detail": "the row has another number of fields than the header"}


def test_nothing_is_written_where_no_row_can_be_used(import_scans: Import, folder: SiteFolder, images: Path) -> None:
    rows = [row | {"path": "absent.png"} for row in scans()]

    ended = import_scans(manifest=write_manifest(images, rows))

    assert ended.code == 1
    assert "nothing was written" in ended.out
    assert not folder.path.exists()


def test_report_lists_refused_rows_by_number(import_scans: Import, images: Path, tmp_path: Path) -> None:
    (images / "scan-3.png").unlink()
    report = tmp_path / "refused.csv"

    ended = import_scans("--report", report)

    assert report.read_text().splitlines() == ["row,reason,detail", "5,file,there is no such file"]
    line = next(line for line in ended.out.splitlines() if line.startswith("there is no such file"))
    assert line.split()[-2:] == ["5", "1"]


@pytest.mark.parametrize("target", ["scan-0", "patient-0"])
def test_deleted_record_is_refused_until_there_is_new_consent(
    import_scans: Import, folder: SiteFolder, secret: Path, tmp_path: Path, target: str
) -> None:
    import_scans()
    reference = FederationSecret.read(secret).reference(target)
    delete(folder, Subject(reference) if target == "patient-0" else Records(frozenset({reference}), SITE))
    (tmp_path / "consents.txt").write_text("scan-0\n")
    rows = [2, 3] if target == "patient-0" else [2]

    refused = import_scans("--json")
    dry = import_scans("--dry-run", "--json").json
    anew = import_scans("--new-consent", tmp_path / "consents.txt", "--json").json

    assert refused.code == 0
    assert [refusal["row"] for refusal in refused.json["refusals"]] == rows
    assert refused.json["reasons"] == dry["reasons"] == {"deleted": len(rows)}
    assert (anew["added"], anew["refused"]) == (1, len(rows) - 1)


def test_patients_namesake_is_imported(import_scans: Import, folder: SiteFolder, secret: Path, images: Path) -> None:
    import_scans()
    delete(folder, Subject(FederationSecret.read(secret).reference("patient-0")))
    namesake = scans()[3] | {"record_id": "patient-0", "subject_id": "patient-1"}

    assert import_scans("--json", manifest=write_manifest(images, [namesake])).json["added"] == 1


def test_deletion_while_the_import_runs_is_obeyed(
    import_scans: Import, folder: SiteFolder, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleting(path: Path, choices: Any) -> Any:
        if path.stem == "scan-6":
            delete(folder, Subject(FederationSecret.read(secret).reference("patient-3")))
        return open_picture(path, choices)

    monkeypatch.setattr(dataset, "BATCH", 4)
    monkeypatch.setattr(importer, "open_picture", deleting)
    shown = import_scans("--json").json

    assert [(refusal["row"], refusal["reason"]) for refusal in shown["refusals"]] == [(8, "deleted"), (9, "deleted")]
    assert shown["added"] == len(held(folder)) == ROWS - 2


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"label": "malignant"}, "with another label; it was left as it is"),
        ({"consent": "permanent"}, "with another consent; it was left as it is"),
        ({"split": "val"}, "with another split; it was left as it is"),
        ({"subject_id": "patient-77"}, "under another subject"),
    ],
)
def test_record_that_the_site_holds_otherwise_is_not_passed_over_in_silence(
    import_scans: Import, folder: SiteFolder, images: Path, change: Row, detail: str
) -> None:
    import_scans()
    before = folder.key_store.read_bytes()
    rows = scans()
    for row in rows[:2]:
        row |= change

    shown = import_scans("--json", manifest=write_manifest(images, rows)).document

    assert (shown["known"], shown["refused"]) == (ROWS - 2, 2)
    assert shown["refusals"][0]["detail"] == f"the site holds this record {detail}"
    assert folder.key_store.read_bytes() == before


def test_subject_stays_in_the_split_that_the_site_holds_it_in(import_scans: Import, images: Path) -> None:
    import_scans()
    another = scans(20)[14] | {"subject_id": "patient-0", "split": "test"}

    shown = import_scans("--json", manifest=write_manifest(images, [another])).document

    assert shown["refusals"][0]["detail"] == "the site holds this subject in another split than test"


def test_what_a_later_manifest_does_not_say_does_not_differ(import_scans: Import, images: Path) -> None:
    import_scans("--consent", "permanent")
    silent = [row | {"split": ""} for row in scans()]

    assert import_scans("--json", manifest=write_manifest(images, silent)).json["known"] == ROWS


def test_subjects_are_divided_by_the_rule(import_scans: Import, folder: SiteFolder, images: Path, secret: Path) -> None:
    rows = [row | {"split": ""} for row in scans(80)]
    words = ["--split-seed", 3, "--val-share", 0.2, "--test-share", 0.3]
    import_scans(*words, manifest=write_manifest(images, rows[:30]))
    import_scans(manifest=write_manifest(images, rows))

    rule, shared = SplitRule(3, 0.2, 0.3), FederationSecret.read(secret)
    splits = {split for _, split in held(folder).values()}
    assert splits == set(Split)
    for subject, split in held(folder).values():
        assert split is rule.split_of(shared.reference(subject))


def test_consent_is_that_of_the_row_or_else_of_all(import_scans: Import, folder: SiteFolder, images: Path) -> None:
    rows = scans()
    rows[0]["consent"] = "Revocable"
    rows[1]["consent"] = "permanent"
    import_scans("--consent", "permanent", manifest=write_manifest(images, rows))

    with folder.open() as store:
        assert store.records.count_consents() == {Consent.REVOCABLE: 1, Consent.PERMANENT: ROWS - 1}


def test_volumes_need_a_slice(import_scans: Import, images: Path) -> None:
    rows = scans()
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 5), np.uint8), np.eye(4)), images / "volume.nii.gz")
    rows[5]["path"] = "volume.nii.gz"
    volumes = write_manifest(images, rows)

    refused = import_scans("--json", manifest=volumes).document
    chosen = import_scans("--slice", "middle", "--json", manifest=volumes).json

    assert refused["refusals"][0]["detail"] == "the NIfTI file holds 5 slices; choose one with --slice"
    assert chosen["added"] == 1


def test_enrolled_site_can_import(run: Run, enrolment: list[object], import_scans: Import, images: Path) -> None:
    run(*enrolment)
    rows = [row | {"record_id": f"file-{row['path']}"} for row in scans()]

    shown = import_scans("--json", manifest=write_manifest(images, rows)).json
    assert shown["records"] == {"train": 70 + ROWS - 4, "val": 0, "test": 6 + 4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-shape", "2x8x8"], "image-shape = 2x8x8"),
        (["--set", "image-path=frozen", "--encoder", "descriptr"], "did you mean descriptor?"),
        (["--set", "num-classes=1"], "num-classes = 1"),
        (["--class", "third", "--set", "num-classes=2"], "there are 3 classes"),
        (["--class", "benign"], "every class needs its own"),
        (["--column", "age=years"], "COLUMN=HEADER"),
        (["--column", "label=finding"], "called 'finding'"),
        (["--slice", "top"], "neither middle nor a whole number"),
        (["--test-share", "1"], "leave no record to train on"),
        (["--report", "{tmp}/scans.csv"], "something else than a report"),
    ],
)
def test_mistake_is_one_line_and_writes_nothing(
    import_scans: Import, folder: SiteFolder, tmp_path: Path, words: list[str], message: str
) -> None:
    assert message in import_scans(*(word.format(tmp=tmp_path) for word in words)).error
    assert not folder.path.exists()


def test_first_import_needs_the_shape_of_the_images(run: Run, manifest: Path, tmp_path: Path, secret: Path) -> None:
    words = ["--site-dir", tmp_path / SITE, "--site", SITE, "--secret", secret]

    assert "--image-shape 1x28x28" in run("import", manifest, *words).error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--site", OTHER], "belongs to site 'hospital-1'"),
        (["--image-shape", "1x9x9"], "the site's images are 1x8x8"),
        (["--class", "malignant", "--class", "benign"], "name these first"),
        (["--slice", "3"], "takes --slice middle"),
        (["--split-seed", "8"], "--split-seed 0 --val-share 0.1"),
        (["--set", "exemplar-size=16"], "exemplar-size = 16"),
        (["--guarantee", "empirical"], "promised its patients guarantee = exact"),
    ],
)
def test_what_was_settled_holds(import_scans: Import, folder: SiteFolder, words: list[str], message: str) -> None:
    import_scans("--slice", "middle")
    before = {path: path.read_bytes() for path in folder.path.iterdir()}

    assert message in import_scans(*words).error
    assert {path: path.read_bytes() for path in folder.path.iterdir()} == before


def test_classes_may_be_added_later(import_scans: Import, images: Path) -> None:
    import_scans()
    third = scans(20)[16] | {"label": "unclear"}

    shown = import_scans(*CLASSES, "--class", "unclear", "--json", manifest=write_manifest(images, [third])).json

    assert (shown["added"], shown["classes"]) == (1, ["benign", "malignant", "unclear"])


def test_damaged_settings_of_a_site_are_one_line(import_scans: Import, folder: SiteFolder) -> None:
    import_scans()
    (folder.path / "pictures.json").write_text("{}")

    assert "pictures.json is damaged" in import_scans().error
