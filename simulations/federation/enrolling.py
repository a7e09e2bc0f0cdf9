"""Filling the folders of many simulated hospitals: on all cores, and held-out records only once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fedmunkey.client.learning.held_out import SharedHeldOut
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.model.encoders import Encoder
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital, open_hospital
from fedmunkey.simulations.programs.worker_processes import run_tasks

HELD_OUT = "held-out"
"""Where the records lie that all hospitals share, beside their folders."""

_WORTH_A_PROCESS = 10_000
"""Records below which a process takes longer to start than to enrol them."""

_PARTS = 4
"""Into how many parts the hospitals of a process are divided, since some take longer than others."""


def enrol_all(
    hospitals: Sequence[Hospital],
    settings: Settings,
    encoder: Encoder,
    shape: ModelShape,
    secret: FederationSecret,
    *,
    cores: int,
    progress: Callable[[int], None],
) -> None:
    """Make all hospitals' folders; `progress` is called with the number of records enrolled since the last call."""
    records = sum(len(hospital.given.records) for hospital in hospitals)
    if cores == 1 or records < _WORTH_A_PROCESS:
        progress(open_hospitals(hospitals, settings, encoder, shape, secret))
        return
    # What a hospital is tested on is not enrolled, and need not be sent to another process.
    bare = [Hospital(hospital.name, hospital.folder, hospital.given) for hospital in hospitals]
    count = min(len(bare), _PARTS * cores)
    run_tasks(
        open_hospitals,
        range(count),
        lambda part: (bare[part::count], settings, encoder, shape, secret),
        cores=cores,
        done=lambda _, enrolled: progress(enrolled),
    )


def open_hospitals(
    hospitals: Sequence[Hospital], settings: Settings, encoder: Encoder, shape: ModelShape, secret: FederationSecret
) -> int:
    """Make some hospitals' folders with one thread, and return how many records they have."""
    torch.set_num_threads(1)
    for hospital in hospitals:
        open_hospital(hospital, settings, encoder, shape, secret)
    return sum(len(hospital.given.records) for hospital in hospitals)


def share_held_out(
    held_out: Encoded,
    hospitals: Sequence[Hospital],
    folder: Path,
    secret: FederationSecret,
    shape: ModelShape,
    *,
    shares: bool,
) -> None:
    """Write held-out records once, and have hospitals evaluate on all of them, or with `shares` each on its share."""
    records = held_out.records
    subjects = [secret.reference(subject) for subject in records.subject_ids.tolist()]
    keys, inputs = held_out.encoding.keys.numpy().astype(np.float32), held_out.inputs(shape).numpy()
    SharedHeldOut.write(folder, records.splits, records.labels, subjects, keys, inputs)
    for place, hospital in enumerate(hospitals):
        share = SharedHeldOut(folder, place, len(hospitals)) if shares else SharedHeldOut(folder, 0, 1)
        share.link(hospital.folder.path)
