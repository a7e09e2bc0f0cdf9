"""What is left of a forgotten record where nobody looks: at other hospitals, and in other images of its patient.

The kin of near duplicates, arXiv 2601.22359: there a copy is changed, here it lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.asking import honest_records, join, log_confidence
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores, Shadow
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded


class OtherHospitals(Attack):
    """The loss threshold, asked of all hospitals but the one that has forgotten."""

    name = "other-hospitals"
    title = "the same image at other hospitals"
    question = "Are hospitals surer of what another one has forgotten than of records that nobody ever saw?"
    paper = "Residual knowledge, arXiv 2601.22359"
    asked = "Asked at other hospitals, the federation"
    holds = "Other hospitals know no more than the oracle's"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the label's log-probability at the surest of the other hospitals; nothing with one hospital."""
        del shadows
        gone = honest_records(case)
        members = [_surest(target.state, case, name, some) for name, some in gone.items()]
        others = [
            _surest(target.state, case, h.name, h.given.split(Split.TEST)) for h in case.hospitals if h.name in gone
        ]
        return Scores(join(members), join(others))


class SamePatient(Attack):
    """The loss threshold, asked of the other images of patients who had one forgotten."""

    name = "same-patient"
    title = "another image of the same patient"
    question = "Is the federation surer of other images of a forgotten record's patient than of records it never saw?"
    paper = "Residual knowledge, arXiv 2601.22359"
    asked = "Asked about other images of the same patients, the federation"
    holds = "Other images of the same patients are as well known as to the oracle"

    def score(self, target: Attacked, case: Case, shadows: Sequence[Shadow]) -> Scores:
        """Score by the label's log-probability; nothing where no patient has another image at the hospital."""
        del shadows
        siblings = _siblings(case)
        members = [log_confidence(target.state.answer(name, some), some) for name, some in siblings.items()]
        tests = {h.name: h.given.split(Split.TEST) for h in case.hospitals if h.name in siblings}
        others = [log_confidence(target.state.answer(name, some), some) for name, some in tests.items()]
        return Scores(join(members), join(others))


def _surest(answers: Answers, case: Case, home: str, some: Encoded) -> NDArray[np.float64]:
    elsewhere = sorted(answers.sites & {h.name for h in case.hospitals} - {home})
    said = [log_confidence(answers.answer(site, some), some) for site in elsewhere]
    return np.asarray(np.max(said, axis=0)) if said else np.empty(0)


def _siblings(case: Case) -> Mapping[str, Encoded]:
    """Return, for each hospital that has any, records of patients who had another one forgotten, test records not."""
    found = {}
    forgotten = honest_records(case)
    for hospital in case.hospitals:
        if hospital.name not in forgotten:
            continue
        records = hospital.given.records
        same = np.isin(records.subject_ids, forgotten[hospital.name].records.subject_ids)
        same[case.forgotten[hospital.name]] = False
        same &= records.splits != Split.TEST.value
        if same.any():
            found[hospital.name] = hospital.given.select(same)
    return found
