"""The plan of deletions of a simulation: what is to be forgotten and when, as written and as drawn from the data.

A deletion is written `kind:amount@round`: `records:5%@3`, `records:40@3`, `subjects:10@4`, `subjects:5%@4`, `site:2@5`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Consent, Dataset, Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.run.changes import Timeline

_EXAMPLES = "records:5%@3, subjects:10@4 or site:2@5"
_GRAMMAR = re.compile(r"(records|subjects|site):([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)@([0-9]{1,9})")


class DeletionKind(StrEnum):
    """What is deleted: single records, whole subjects or everything at one hospital."""

    RECORDS = "records"
    SUBJECTS = "subjects"
    SITE = "site"


@dataclass(frozen=True)
class PlannedDeletion:
    """One deletion as it is written: it comes after round `round - 1` has ended and before round `round` trains.

    Records and subjects are counted, or are a `fraction` in (0, 1] of those that all hospitals together began with; a
    site is the number of a hospital. Rounds and hospitals count from 1.
    """

    kind: DeletionKind
    round: int
    count: int | None = None
    fraction: float | None = None
    hospital: int | None = None

    def __str__(self) -> str:
        """Return the deletion as `parse_plan` reads it."""
        if self.kind is DeletionKind.SITE:
            return f"{self.kind}:{self.hospital}@{self.round}"
        amount = self.count if self.fraction is None else f"{self.fraction * 100:.12g}%"
        return f"{self.kind}:{amount}@{self.round}"

    def number_of(self, total: int) -> int:
        """Return how many of `total` records or subjects are asked for, at least 1."""
        if self.fraction is not None:
            return max(1, round(self.fraction * total))
        return self.count or 0


@dataclass(frozen=True)
class ResolvedDeletion:
    """One deletion with the training records that it erases.

    `rows` has for each hospital the positions of these in its data set, ascending; `subjects` those that were drawn,
    sorted, empty unless the kind is `SUBJECTS`. A subject's held-out records are not in `rows`.
    """

    planned: PlannedDeletion
    rows: tuple[NDArray[np.int64], ...]
    subjects: tuple[str, ...] = ()

    @property
    def expected(self) -> tuple[int, ...]:
        """How many training records each hospital is expected to erase."""
        return tuple(len(rows) for rows in self.rows)


def parse_plan(texts: Sequence[str], *, hospitals: int, num_rounds: int) -> tuple[PlannedDeletion, ...]:
    """Read deletions as a command line gives them and return them in the order in which they happen.

    Raises `InvalidDeletion` if a text is not of the form `kind:amount@round`, an amount, hospital or round is out of
    range, or a hospital is deleted twice.
    """
    plan = sorted((_parse(text.strip(), hospitals, num_rounds) for text in texts), key=lambda planned: planned.round)
    sites: set[int] = set()
    for planned in plan:
        if planned.hospital in sites:
            raise InvalidDeletion(f"{planned}: hospital {planned.hospital} is deleted twice; name it only once")
        if planned.hospital is not None:
            sites.add(planned.hospital)
    return tuple(plan)


def resolve(
    plan: Sequence[PlannedDeletion], hospitals: Sequence[Dataset], seed: int, timeline: Timeline | None = None
) -> tuple[ResolvedDeletion, ...]:
    """Draw the records that each deletion erases.

    Deletions are resolved in the order of their rounds. Records and subjects are drawn uniformly from those that are
    left over all hospitals together and whose consent may be withdrawn; a percentage is of all records, or of all
    subjects with such consent, that there were at the beginning, rounded. A whole site goes whatever the consent. The
    same seed draws the same records. With a timeline, records that are not there by then are not drawn, and a hospital
    that is asleep asks for nothing itself; subjects may have records there, which go when it is back. Raises
    `InvalidDeletion` if a deletion asks for more than is left or leaves no training record at any hospital.
    """
    remaining = _Remaining(hospitals, timeline or Timeline.draw((), hospitals, seed))
    resolved = []
    for position, planned in enumerate(sorted(plan, key=lambda planned: planned.round)):
        generator = np.random.default_rng(derive_seed(seed, "deletions", position))
        deletion = remaining.draw(planned, generator)
        remaining.erase(planned, deletion.rows)
        resolved.append(deletion)
    return tuple(resolved)


def forget_rows(deletions: Sequence[ResolvedDeletion], hospitals: int) -> tuple[NDArray[np.int64], ...]:
    """Return, for each hospital, the positions of the training records that the deletions erase together, ascending."""
    empty = np.empty(0, dtype=np.int64)
    return tuple(
        np.sort(np.concatenate([empty, *(deletion.rows[hospital] for deletion in deletions)]))
        for hospital in range(hospitals)
    )


def _parse(text: str, hospitals: int, num_rounds: int) -> PlannedDeletion:
    match = _GRAMMAR.fullmatch(text)
    whole = match is not None and (match[3] or "." not in match[2])
    if match is None or not whole or (match[1] == DeletionKind.SITE and match[3]):
        raise InvalidDeletion(f"{text!r} is not of the form kind:amount@round; write for example {_EXAMPLES}")
    kind, amount, percent, round_number = DeletionKind(match[1]), match[2], match[3], int(match[4])
    if not 1 <= round_number <= num_rounds:
        raise InvalidDeletion(
            f"{text}: there is no round {round_number}; choose a round from 1 to {num_rounds}, or train more rounds"
        )
    if kind is DeletionKind.SITE:
        return PlannedDeletion(kind, round_number, hospital=_hospital(text, int(amount), hospitals))
    if percent:
        if not 0 < float(amount) <= 100:
            raise InvalidDeletion(f"{text}: {amount}% is out of range; give more than 0% and at most 100%")
        return PlannedDeletion(kind, round_number, fraction=float(amount) / 100)
    if int(amount) == 0:
        raise InvalidDeletion(f"{text}: deletes no {kind}; give a number of at least 1")
    return PlannedDeletion(kind, round_number, count=int(amount))


def _hospital(text: str, hospital: int, hospitals: int) -> int:
    if not 1 <= hospital <= hospitals:
        raise InvalidDeletion(
            f"{text}: names hospital {hospital}, but there are {hospitals}; choose from 1 to {hospitals}"
        )
    return hospital


class _Remaining:
    """Which training records every hospital still has while a plan is resolved."""

    def __init__(self, hospitals: Sequence[Dataset], timeline: Timeline) -> None:
        self._hospitals = hospitals
        self._timeline = timeline
        self._round: int | None = None
        self._left = [hospital.splits == Split.TRAIN.value for hospital in hospitals]
        self._revocable = [hospital.consents == Consent.REVOCABLE.value for hospital in hospitals]
        self._totals = {DeletionKind.RECORDS: self._records(), DeletionKind.SUBJECTS: len(self._subjects())}

    def draw(self, planned: PlannedDeletion, generator: np.random.Generator) -> ResolvedDeletion:
        """Choose what the deletion erases, without erasing it."""
        self._round = planned.round
        if planned.kind is DeletionKind.SITE:
            rows = self._where([index == planned.hospital for index in range(1, len(self._hospitals) + 1)])
            if not self._is_there((planned.hospital or 0) - 1):
                raise InvalidDeletion(
                    f"{planned}: hospital {planned.hospital} is not there before round {planned.round}, so it asks for "
                    "nothing; choose a round in which it is"
                )
            if not any(map(len, rows)):
                raise InvalidDeletion(
                    f"{planned}: hospital {planned.hospital} has no training record left by then; "
                    "take the deletion out of the plan"
                )
            return ResolvedDeletion(planned, rows)
        if planned.kind is DeletionKind.SUBJECTS:
            subjects = self._subjects()
            chosen = np.sort(generator.choice(subjects, self._number(planned, len(subjects)), replace=False))
            return ResolvedDeletion(
                planned,
                self._where([np.isin(hospital.subject_ids, chosen) for hospital in self._hospitals]),
                tuple(chosen.tolist()),
            )
        withdrawable = [rows & self._is_there(place) for place, rows in enumerate(self._withdrawable())]
        sizes = [int(rows.sum()) for rows in withdrawable]
        places = generator.choice(sum(sizes), self._number(planned, sum(sizes)), replace=False)
        drawn = np.zeros(sum(sizes), dtype=np.bool_)
        drawn[places] = True
        parts = np.split(drawn, np.cumsum(sizes)[:-1])
        return ResolvedDeletion(
            planned, tuple(np.flatnonzero(rows)[part] for rows, part in zip(withdrawable, parts, strict=True))
        )

    def erase(self, planned: PlannedDeletion, rows: tuple[NDArray[np.int64], ...]) -> None:
        """Take the records out of what is left; some must stay."""
        for left, gone in zip(self._left, rows, strict=True):
            left[gone] = False
        if not self._records():
            raise InvalidDeletion(f"{planned}: leaves no training record at any hospital; delete less")

    def _records(self) -> int:
        return int(sum(held.sum() for held in self._held()))

    def _subjects(self) -> NDArray[np.str_]:
        held = zip(self._hospitals, self._withdrawable(), strict=True)
        return np.unique(np.concatenate([hospital.subject_ids[rows] for hospital, rows in held]))

    def _withdrawable(self) -> list[NDArray[np.bool_]]:
        """Return, for each hospital, which of the records that are left may be withdrawn."""
        return [held & revocable for held, revocable in zip(self._held(), self._revocable, strict=True)]

    def _held(self) -> list[NDArray[np.bool_]]:
        """Return, for each hospital, which records it has in the round that is drawn for; all before any is."""
        if self._round is None:
            return self._left
        return [left & self._timeline.holds(place, self._round) for place, left in enumerate(self._left)]

    def _is_there(self, place: int) -> bool:
        return self._timeline.is_there(place, self._round or 1)

    def _number(self, planned: PlannedDeletion, left: int) -> int:
        number = planned.number_of(self._totals[planned.kind])
        if number > left:
            raise InvalidDeletion(
                f"{planned}: asks for {number} {planned.kind}, but only {left} are left that may be withdrawn; "
                "ask for fewer"
            )
        return number

    def _where(self, chosen: Sequence[NDArray[np.bool_] | bool]) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.flatnonzero(left & mask) for left, mask in zip(self._held(), chosen, strict=True))
