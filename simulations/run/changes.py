"""Hospitals that come and go while a simulation runs, and records that arrive: as written and as drawn from the data.

A change is written `join:3@2` (hospital 3 takes part from round 2 on), `leave:4@3` (it leaves before round 3),
`sleep:2@2-3` (nothing of it answers in rounds 2 to 3) or `arrive:20%@3`, `arrive:40@3` (so many of all training
records come to their hospitals only before round 3).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Dataset, Split
from fedmunkey.common.errors import InvalidSetting
from fedmunkey.common.model.randomness import derive_seed

_EXAMPLES = "join:3@2, leave:4@3, sleep:2@2-3 or arrive:20%@3"
_GRAMMAR = re.compile(r"(join|leave|sleep|arrive):([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)@([0-9]{1,9})(?:-([0-9]{1,9}))?")


class ChangeKind(StrEnum):
    """What changes."""

    JOIN = "join"
    LEAVE = "leave"
    SLEEP = "sleep"
    ARRIVE = "arrive"


@dataclass(frozen=True)
class Change:
    """One change as it is written: it comes before round `round`; a sleep lasts until round `until` has ended.

    Hospitals and rounds count from 1. Records that arrive are counted, or a `fraction` in (0, 1] of all training
    records.
    """

    kind: ChangeKind
    round: int
    hospital: int | None = None
    until: int | None = None
    count: int | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        """Return the change as `parse_changes` reads it."""
        if self.kind is ChangeKind.ARRIVE:
            amount = self.count if self.fraction is None else f"{self.fraction * 100:.12g}%"
            return f"arrive:{amount}@{self.round}"
        return f"{self.kind}:{self.hospital}@{self.round}" + (f"-{self.until}" if self.until is not None else "")


def parse_changes(texts: Sequence[str], *, hospitals: int, num_rounds: int) -> tuple[Change, ...]:
    """Read changes as a command line gives them and return them in the order of their rounds.

    Raises `InvalidSetting` if a text is not of such a form, an amount, hospital or round is out of range, a hospital
    joins or leaves twice, or is to do something while it is not a member.
    """
    changes = sorted((_parse(text.strip(), hospitals, num_rounds) for text in texts), key=lambda change: change.round)
    for hospital in {change.hospital for change in changes} - {None}:
        own = [change for change in changes if change.hospital == hospital]
        joins, leaves = ([c.round for c in own if c.kind is kind] for kind in (ChangeKind.JOIN, ChangeKind.LEAVE))
        first, last = min(joins, default=1), min(leaves, default=num_rounds + 1)
        if len(joins) > 1 or len(leaves) > 1 or last <= first:
            raise InvalidSetting(f"hospital {hospital} joins and leaves at most once each, and joins first")
        for change in own:
            if change.kind is ChangeKind.SLEEP and not (first <= change.round and (change.until or 0) < last):
                raise InvalidSetting(f"{change}: hospital {hospital} is a member from round {first} to {last - 1} only")
    return tuple(changes)


def _parse(text: str, hospitals: int, num_rounds: int) -> Change:
    match = _GRAMMAR.fullmatch(text)
    kind = ChangeKind(match[1]) if match is not None else None
    whole = match is not None and "." not in (match[2] if not match[3] else "")
    if match is None or kind is None or not whole or (kind is not ChangeKind.SLEEP and match[5]):
        raise InvalidSetting(f"{text!r} is no change of hospitals or records; write for example {_EXAMPLES}")
    number, until = int(match[4]), int(match[5] or match[4])
    # Before the first round nothing has to change: hospitals that are late are late for some round.
    least = 1 if kind is ChangeKind.SLEEP else 2
    if not least <= number <= until <= num_rounds:
        raise InvalidSetting(f"{text}: choose rounds from {least} to {num_rounds}, or train more with --rounds")
    if kind is ChangeKind.ARRIVE:
        if match[3]:
            if not 0 < float(match[2]) < 100:
                raise InvalidSetting(f"{text}: {match[2]}% is out of range; give more than 0% and less than 100%")
            return Change(kind, number, fraction=float(match[2]) / 100)
        if int(match[2]) == 0:
            raise InvalidSetting(f"{text}: no record arrives; give a number of at least 1")
        return Change(kind, number, count=int(match[2]))
    if match[3] or not 1 <= int(match[2]) <= hospitals:
        raise InvalidSetting(f"{text}: names hospital {match[2]}{match[3]}, but there are {hospitals}")
    return Change(kind, number, hospital=int(match[2]), until=until if kind is ChangeKind.SLEEP else None)


@dataclass(frozen=True)
class Timeline:
    """Which hospitals are there in which round, and since which round their records are.

    `since` has for each hospital the first round of each of its records, (n,), 1 for those that it begins with.
    """

    changes: tuple[Change, ...]
    since: tuple[NDArray[np.int64], ...]

    @classmethod
    def draw(cls, changes: Sequence[Change], hospitals: Sequence[Dataset], seed: int) -> Timeline:
        """Draw the training records that arrive, uniformly over all hospitals; the same seed draws the same ones.

        Raises `InvalidSetting` if more are to arrive than there are.
        """
        since = tuple(np.ones(len(hospital), dtype=np.int64) for hospital in hospitals)
        training = [np.flatnonzero(hospital.splits == Split.TRAIN.value) for hospital in hospitals]
        of = np.repeat(np.arange(len(hospitals)), [len(rows) for rows in training])
        rows = np.concatenate([np.empty(0, dtype=np.int64), *training])
        order = np.random.default_rng(derive_seed(seed, "arrivals")).permutation(len(rows))
        taken = 0
        for change in changes:
            if change.kind is not ChangeKind.ARRIVE:
                continue
            count = change.count or max(1, round((change.fraction or 0.0) * len(rows)))
            if taken + count >= len(rows):
                raise InvalidSetting(f"{change}: no training record is left to begin with; let fewer arrive")
            for place in order[taken : taken + count]:
                since[of[place]][rows[place]] = change.round
            taken += count
        return cls(tuple(changes), since)

    def is_member(self, hospital: int, number: int) -> bool:
        """Return whether a hospital, counted from 0, has joined and not left before a round."""
        return all(
            change.round <= number if change.kind is ChangeKind.JOIN else change.round > number
            for change in self._of(hospital)
            if change.kind in (ChangeKind.JOIN, ChangeKind.LEAVE)
        )

    def has_left(self, hospital: int, number: int) -> bool:
        """Return whether a hospital has left before a round."""
        return any(change.kind is ChangeKind.LEAVE and change.round <= number for change in self._of(hospital))

    def is_there(self, hospital: int, number: int) -> bool:
        """Return whether a hospital is a member that answers in a round."""
        asleep = (
            change.kind is ChangeKind.SLEEP and change.round <= number <= (change.until or 0)
            for change in self._of(hospital)
        )
        return self.is_member(hospital, number) and not any(asleep)

    def holds(self, hospital: int, number: int) -> NDArray[np.bool_]:
        """Return which of its records (n,) a hospital has in a round where nothing is deleted; none of no member."""
        held: NDArray[np.bool_] = (self.since[hospital] <= number) & self.is_member(hospital, number)
        return held

    def _of(self, hospital: int) -> list[Change]:
        return [change for change in self.changes if change.hospital == hospital + 1]
