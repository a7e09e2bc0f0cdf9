"""From candidates to records in the key store, some at a time: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.pictures import UnusablePicture, read_picture
from fedmunkey.client.importing.planning import DELETED, Candidate
from fedmunkey.client.importing.refusals import Reason, RefusedRow
from fedmunkey.client.key_store import Enrolled
from fedmunkey.client.records.dataset import Dataset, batches

Take = Callable[[Dataset], tuple[Enrolled, NDArray[np.bool_]]]
"""Takes n records; returns counts, and (n,) which were not taken because they were deleted meanwhile."""


@dataclass(frozen=True)
class Imported:
    """What became of the candidates: counts of those whose file was read, and refusals of all others."""

    enrolled: Enrolled
    refusals: tuple[RefusedRow, ...]


def import_candidates(
    candidates: tuple[Candidate, ...], conventions: Conventions, take: Take, progress: Callable[[int], None]
) -> Imported:
    """Read the candidates' files and hand their records on, some at a time.

    `progress` is called with the number of candidates finished since the last call.
    """
    enrolled, refusals = Enrolled(), []
    for some in batches(candidates):
        read: list[Candidate] = []
        images: list[NDArray[np.uint8]] = []
        for candidate in some:
            try:
                pixels = read_picture(candidate.path, conventions.choices)
            except UnusablePicture as reason:
                refusals.append(RefusedRow(candidate.row, Reason.FILE, str(reason)))
                progress(1)
                continue
            images.append(fit(pixels, conventions.image_shape))
            read.append(candidate)
        if read:
            counts, refused = take(_records(read, images, conventions))
            enrolled += counts
            refusals += [
                RefusedRow(candidate.row, Reason.DELETED, DELETED)
                for candidate, left_out in zip(read, refused.tolist(), strict=True)
                if left_out
            ]
            progress(len(read))
    return Imported(enrolled, tuple(refusals))


def only_look(records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
    """Take nothing: what a dry run does."""
    return Enrolled(), np.zeros(len(records), dtype=np.bool_)


def _records(read: Sequence[Candidate], images: list[NDArray[np.uint8]], conventions: Conventions) -> Dataset:
    return Dataset(
        images=np.stack(images),
        labels=np.array([candidate.label for candidate in read], dtype=np.int64),
        record_ids=np.array([candidate.record_id for candidate in read], dtype=np.str_),
        subject_ids=np.array([candidate.subject_id for candidate in read], dtype=np.str_),
        splits=np.array([candidate.split.value for candidate in read], dtype=np.str_),
        consents=np.array([candidate.consent.value for candidate in read], dtype=np.str_),
        class_names=conventions.classes,
    )
