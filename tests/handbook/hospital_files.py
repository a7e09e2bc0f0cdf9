"""What a hospital brings: pictures and the manifest that names them, as docs/pictures.md describes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("benign", "malignant")
SHARED_PATIENT = "patient-7"
"""Has been at every hospital."""

_SIDE = 32
_PATIENTS, _EACH = 40, 2


def write_hospital_files(folder: Path, hospital: str) -> None:
    """Write scans.csv with the pictures that it names, and new.png, which no record is of.

    Patients are called `hospital-a-1` and so on, two pictures of each, a quarter of the patients held out for tests;
    `SHARED_PATIENT` stands for the seventh.
    """
    draws = np.random.default_rng(sum(hospital.encode()))
    (folder / "scans").mkdir()
    rows = []
    for patient in range(1, _PATIENTS + 1):
        subject = SHARED_PATIENT if patient == 7 else f"{hospital}-{patient}"
        for number in range(1, _EACH + 1):
            name = f"scans/{patient:02d}-{number}.png"
            label = CLASSES[patient % len(CLASSES)]
            _picture(label, draws).save(folder / name)
            split = "test" if patient % 4 == 0 else "train"
            rows.append([name, label, f"{hospital}-{patient}-{number}", subject, split])
    with (folder / "scans.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "record_id", "subject_id", "split"])
        writer.writerows(rows)
    _picture("malignant", draws).save(folder / "new.png")


def _picture(label: str, draws: np.random.Generator) -> Image.Image:
    """Draw a blurred disc, which is ragged where it is malignant, on noise."""
    down, across = np.mgrid[:_SIDE, :_SIDE] - _SIDE / 2 + draws.normal(0, 2, (2, 1, 1))
    ragged = 2.5 if label == "malignant" else 0.0
    radius = 8 + draws.normal(0, 1) + ragged * np.sin(7 * np.arctan2(down, across))
    disc = 1 / (1 + np.exp(np.hypot(down, across) - radius))
    grey = 60 + 140 * disc + draws.normal(0, 8, (_SIDE, _SIDE))
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))
