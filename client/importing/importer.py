"""From candidates to records in the key store, some at a time: memory does not grow with their number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.importing.conventions import Conventions
from fedmunkey.client.importing.fitting import fit
from fedmunkey.client.importing.held_records import HeldPictures
from fedmunkey.client.importing.notices import OF_REMARKS, NotedRow, Notice, SeenPictures
from fedmunkey.client.importing.pictures import UnusablePicture, open_picture
from fedmunkey.client.importing.planning import DELETED, Candidate
from fedmunkey.client.importing.refusals import Reason, RefusedRow
from fedmunkey.client.key_store import Enrolled, KeyStore
from fedmunkey.client.records.dataset import Dataset, batches

Take = Callable[[Dataset], tuple[Enrolled, NDArray[np.bool_]]]
"""Takes n records; returns counts, and (n,) which were not taken because they were deleted meanwhile."""

Show = Callable[[Candidate, NDArray[np.uint8]], None]
"""Is shown a candidate and its (C, H, W) image, as the model will see it."""

_OTHER_PICTURE = (
    "the site holds this record with another picture, or read it otherwise; it was left as it is: delete it, or give "
    "this one another id"
)


@dataclass(frozen=True)
class Imported:
    """What became of the candidates: counts of those whose file was read, refusals of others, and what was noted."""

    enrolled: Enrolled
    refusals: tuple[RefusedRow, ...]
    noted: tuple[NotedRow, ...] = ()


@dataclass
class Importer:
    """Reads candidates' files and hands their records on, some at a time.

    Attributes
    ----------
    held : HeldPictures, optional
        The pictures that the site has, of which those of known candidates are compared.
    show : callable
        Is shown every picture that is used.
    """

    conventions: Conventions
    take: Take
    progress: Callable[[int], None]
    held: HeldPictures | None = None
    show: Show | None = None
    _enrolled: Enrolled = field(default_factory=Enrolled, init=False)
    _refusals: list[RefusedRow] = field(default_factory=list, init=False)
    _noted: list[NotedRow] = field(default_factory=list, init=False)
    _seen: SeenPictures = field(default_factory=SeenPictures, init=False)

    def run(self, candidates: Iterable[Candidate]) -> Imported:
        """Take in all candidates that can be used; `progress` is called with how many were finished since."""
        for some in batches(candidates):
            images = [self._read(candidate) for candidate in some]
            read = [(candidate, image) for candidate, image in zip(some, images, strict=True) if image is not None]
            self.progress(len(some) - len(read))
            if read:
                self._hand_on([candidate for candidate, _ in read], [image for _, image in read])
        return Imported(self._enrolled, tuple(self._refusals), (*self._noted, *self._seen.repeated()))

    def _read(self, candidate: Candidate) -> NDArray[np.uint8] | None:
        """Return a candidate's image if it is to be taken in."""
        try:
            picture = open_picture(candidate.path, candidate.choices)
        except UnusablePicture as reason:
            if candidate.known:
                # Its files may have been moved since; what the site holds is as it was.
                self._enrolled += Enrolled(known=1)
            else:
                self._refusals.append(RefusedRow(candidate.row, Reason.FILE, sys.intern(str(reason))))
            return None
        image = fit(picture.pixels, self.conventions.image_shape)
        if candidate.known:
            self._compare(candidate, image)
            return None
        self._noted += [NotedRow(candidate.row, OF_REMARKS[remark]) for remark in picture.remarks]
        if self.held is not None and self.held.holds(image):
            self._noted.append(NotedRow(candidate.row, Notice.PICTURE_HELD))
        self._seen.add(candidate.row, image.tobytes(), candidate.split)
        return image

    def _compare(self, candidate: Candidate, image: NDArray[np.uint8]) -> None:
        if self.held is not None and self.held.is_another(candidate.record_id, image):
            self._refusals.append(RefusedRow(candidate.row, Reason.DIFFERS, _OTHER_PICTURE))
            return
        self._enrolled += Enrolled(known=1)

    def _hand_on(self, some: Sequence[Candidate], images: list[NDArray[np.uint8]]) -> None:
        counts, refused = self.take(_records(some, images, self.conventions))
        self._enrolled += counts
        for candidate, image, left_out in zip(some, images, refused.tolist(), strict=True):
            if left_out:
                self._refusals.append(RefusedRow(candidate.row, Reason.DELETED, DELETED))
            elif self.show is not None:
                self.show(candidate, image)
        self.progress(len(some))


def looking(store: KeyStore | None, new_consent: frozenset[str]) -> Take:
    """Return what takes nothing, as a dry run does, and says what would be left out since its picture was deleted."""

    def look(records: Dataset) -> tuple[Enrolled, NDArray[np.bool_]]:
        deleted = [
            store is not None and str(name) not in new_consent and store.records.has_deleted_image(image)
            for name, image in zip(records.record_ids, records.images, strict=True)
        ]
        return Enrolled(), np.array(deleted, dtype=np.bool_)

    return look


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
