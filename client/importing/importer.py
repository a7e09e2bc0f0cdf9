"""From candidates to records in the key store, some at a time: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from client.dataset import Dataset
from client.enrolment import encode, enrol
from client.importing.conventions import Conventions, write_conventions
from client.importing.fitting import fit
from client.importing.pictures import UnusablePicture, read_picture
from client.importing.planning import DELETED, Candidate, batches
from client.importing.refusals import Reason, Refusal
from client.key_store import Enrolled, KeyStore
from client.site_enrolment import SiteEnrolment

BATCH = 64
"""Records that are in memory, and in one transaction, at a time: what an interruption may cost."""


class Taker(Protocol):
    """Takes records and says which of them it has not taken, because they were deleted meanwhile."""

    def __call__(self, records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
        """Take n records; return counts, and (n,) which were refused."""


@dataclass(frozen=True)
class Imported:
    """What became of the candidates: counts of those whose file was read, and refusals of all others."""

    enrolled: Enrolled
    refusals: tuple[Refusal, ...]


def import_candidates(
    candidates: tuple[Candidate, ...], conventions: Conventions, take: Taker, progress: Callable[[int], None]
) -> Imported:
    """Read the candidates' files and hand their records on.

    Parameters
    ----------
    candidates : tuple of Candidate
        What a plan has found importable.
    conventions : Conventions
        The shape that images are brought to, and the classes.
    take : Taker
        Where records go.
    progress : callable
        Called with the number of candidates finished since the last call.
    """
    enrolled, refusals = Enrolled(), []
    for some in batches(candidates, BATCH):
        read: list[Candidate] = []
        images: list[NDArray[np.uint8]] = []
        for candidate in some:
            try:
                pixels = read_picture(candidate.path, conventions.choices)
            except UnusablePicture as reason:
                refusals.append(Refusal(candidate.row, Reason.FILE, str(reason)))
                progress(1)
                continue
            images.append(fit(pixels, conventions.image_shape))
            read.append(candidate)
        if read:
            counts, refused = take(_records(read, images, conventions))
            enrolled += counts
            refusals += [
                Refusal(candidate.row, Reason.DELETED, DELETED)
                for candidate, left_out in zip(read, refused.tolist(), strict=True)
                if left_out
            ]
            progress(len(read))
    return Imported(enrolled, tuple(refusals))


def only_look(records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
    """Take nothing: what a dry run does."""
    return Enrolled(), np.zeros(len(records), dtype=np.bool_)


class Enroller:
    """Takes records into a site's key store, which is made when the first of them come; a context manager.

    Parameters
    ----------
    enrolment : SiteEnrolment
        The site.
    conventions : Conventions
        What is kept in the site's folder as soon as there is a record that was treated so.
    new_consent : frozenset of str
        Ids of records that may come back after a deletion.
    """

    def __init__(self, enrolment: SiteEnrolment, conventions: Conventions, new_consent: frozenset[str]) -> None:
        self._enrolment = enrolment
        self._conventions = conventions
        self._new_consent = new_consent
        self._store: KeyStore | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            self._store.close()

    def __call__(self, records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
        """Encode and add records; return counts, and which were refused since they were deleted."""
        store, secret = self._open(), self._enrolment.secret
        counts = enrol(store, encode(self._enrolment.encoder, records), secret, new_consent=self._new_consent)
        left_out = [
            bool(counts.refused) and not store.records.holds(secret.reference(name)) for name in records.record_ids
        ]
        return counts, np.array(left_out, dtype=np.bool_)

    def _open(self) -> KeyStore:
        if self._store is None:
            self._store = self._enrolment.open()
            write_conventions(self._enrolment.folder, self._conventions)
        return self._store


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
