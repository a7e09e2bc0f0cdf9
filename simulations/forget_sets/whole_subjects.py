"""Whole patients: all that was learned about somebody goes at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.randomness import derive_seed
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.drawing import amounts, check_some_stay, is_train, is_withdrawable, nothing
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet


class WholeSubjects(ForgetSet):
    """At each hospital subjects, uniformly, until the share is reached; part of the last one's records may exceed it.

    A drawn subject's training records go at every hospital. Its held-out records stay: nothing was learned from them.
    """

    name = "subjects"
    title = "whole patients"

    def draw(self, hospitals: Sequence[Hospital], share: float, seed: int) -> Drawn:
        """Draw subjects, forgotten in one deletion."""
        asked = amounts(hospitals, share)
        bound = [h.given.records.subject_ids[is_train(h) & ~is_withdrawable(h)] for h in hospitals]
        chosen: list[str] = []
        for hospital in hospitals:
            may_go = is_withdrawable(hospital) & ~np.isin(hospital.given.records.subject_ids, np.concatenate(bound))
            if asked[hospital.name] > may_go.sum():
                raise InvalidDeletion(
                    f"{asked[hospital.name]} records of {hospital.name} cannot be forgotten: the subjects all of whose "
                    f"records may be withdrawn have only {int(may_go.sum())}; forget fewer, or make fewer permanent"
                )
            generator = np.random.default_rng(derive_seed(seed, "forget subjects", hospital.name))
            chosen += _until(hospital.given.records.subject_ids[may_go], asked[hospital.name], generator)
        rows = {h.name: np.flatnonzero(is_train(h) & np.isin(h.given.records.subject_ids, chosen)) for h in hospitals}
        for hospital in hospitals:
            check_some_stay(hospital, len(rows[hospital.name]))
        return Drawn(hospitals, [rows], nothing(hospitals))


def _until(subject_ids: NDArray[np.str_], wanted: int, generator: np.random.Generator) -> list[str]:
    """Draw subjects, given the subject of each record, until they have as many records as wanted."""
    subjects, sizes = np.unique(subject_ids, return_counts=True)
    order = generator.permutation(len(subjects))
    before = np.cumsum(sizes[order]) - sizes[order]
    return [str(subject) for subject in subjects[order[before < wanted]]]
