from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fedmunkey.client.records.medmnist_files import read_npz
from fedmunkey.simulations.deploy_local.hospital_files import HOSPITALS, MANIFEST, PATIENT, write_hospital_files
from fedmunkey.simulations.federation.sources import load_dataset


def test_patient_has_records_at_two_hospitals_that_may_be_withdrawn_and_most_are_given_for_good(tmp_path: Path) -> None:
    data = load_dataset("digits", data_dir=None, seed=0)

    files = write_hospital_files(data, tmp_path)

    with (tmp_path / f"{HOSPITALS[0]}-files" / MANIFEST).open() as manifest:
        rows = [row for row in csv.DictReader(manifest) if row["subject_id"] == PATIENT]
    second, third = (read_npz(tmp_path / f"{hospital}-files" / "records.npz") for hospital in HOSPITALS[1:])
    held = second.consents[second.subject_ids == PATIENT]
    assert {row["consent"] for row in rows} | set(held) == {"revocable"}
    assert len(rows) + len(held) == files.records == 6
    assert PATIENT not in third.subject_ids
    assert (tmp_path / files.picture).exists()
    assert (files.shape, files.class_names) == ("1x8x8", data.class_names)
    assert np.mean(second.consents == "permanent") > 0.5
    # No image is at two hospitals.
    assert len(set(second.record_ids) & set(third.record_ids)) == 0
    assert not np.array_equal(second.images[:20], third.images[:20])
