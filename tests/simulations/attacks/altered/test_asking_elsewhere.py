"""Attacks on copies, on labels alone, at other hospitals and through other images of a patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.client.records.dataset import Split
from fedmunkey.simulations.attacks.altered.alterations import ALTERATIONS, altered
from fedmunkey.simulations.attacks.altered.label_only import LabelOnly
from fedmunkey.simulations.attacks.altered.near_duplicates import NearDuplicates
from fedmunkey.simulations.attacks.altered.other_places import OtherHospitals, SamePatient
from fedmunkey.simulations.attacks.asking import honest_records
from fedmunkey.simulations.attacks.attack import Attack, Attacked, Scores
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from tests.simulations.attacks.conftest import Tell


@dataclass(frozen=True)
class Recognises:
    """Is sure of the label of records for which something holds, at the hospital that is asked, and of no others."""

    knows: Callable[[str, Encoded, int], bool]
    sites: frozenset[str] = frozenset()

    def answer(self, site: str, records: Encoded) -> Tensor:
        classes = records.records.num_classes
        said = torch.full((len(records.records), classes), 0.5 / (classes - 1))
        for row, label in enumerate(records.records.labels.tolist()):
            sure = 0.9 if self.knows(site, records, row) else 0.05
            said[row] = (1 - sure) / (classes - 1)
            said[row, label] = sure
        return said

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        return self.answer(site, records)


def scored(attack: Attack, state: Recognises | object, case: Case) -> Scores:
    return attack.score(Attacked(state, state), case, [])  # type: ignore[arg-type]


def copies(case: Case, names: Sequence[str]) -> Recognises:
    views = altered(case).members
    kept = {
        some.records.images[row].tobytes()
        for name in names
        for some in views[name].values()
        for row in range(len(some.records))
    }
    return Recognises(lambda _, some, row: some.records.images[row].tobytes() in kept)


@pytest.mark.parametrize("attack", [NearDuplicates(), LabelOnly()], ids=lambda attack: attack.name)
@pytest.mark.parametrize("name", ALTERATIONS)
def test_kept_copy_is_found_although_the_original_is_unknown(attack: Attack, name: str, case: Case) -> None:
    state = copies(case, [name])

    gone = honest_records(case)
    assert all((state.answer(site, some).max(1).values < 0.5).all() for site, some in gone.items())
    assert scored(attack, state, case).auroc == 1


@pytest.mark.parametrize("attack", [NearDuplicates(), LabelOnly()], ids=lambda attack: attack.name)
def test_federation_that_kept_no_copy_gives_nothing_away(attack: Attack, case: Case) -> None:
    assert scored(attack, copies(case, []), case).auroc == 0.5


def test_labels_alone_do_not_see_how_sure_answers_are(case: Case, told: Tell, honest: list[str]) -> None:
    state = told(dict.fromkeys(honest, 0.99), otherwise=0.6)

    assert scored(LabelOnly(), state, case).auroc == 0.5
    assert scored(NearDuplicates(), state, case).auroc == 1


def test_record_that_another_hospital_still_has_is_found_there_and_not_at_home(case: Case, honest: list[str]) -> None:
    homes = {record: name for name, some in honest_records(case).items() for record in some.records.record_ids.tolist()}
    sites = frozenset(h.name for h in case.hospitals)

    def knows(site: str, some: Encoded, row: int) -> bool:
        record = str(some.records.record_ids[row])
        return record in homes and (site == elsewhere) != (homes[record] == elsewhere)

    elsewhere = case.hospitals[2].name
    assert not honest_records(case).get(elsewhere)
    assert scored(OtherHospitals(), Recognises(knows, sites), case).auroc == 1
    only_home = Recognises(lambda site, some, row: homes.get(str(some.records.record_ids[row])) == site, sites)
    found = scored(OtherHospitals(), only_home, case)
    assert found.auroc == 0.5
    assert len(found.members) == len(honest)


def test_one_hospital_alone_has_no_others(case: Case) -> None:
    alone = Recognises(lambda *_: False, frozenset({case.hospitals[0].name}))
    only = replace(
        case, deletions=[{n: r if n == case.hospitals[0].name else r[:0] for n, r in d.items()} for d in case.deletions]
    )

    assert not scored(OtherHospitals(), alone, only).usable


def test_patient_is_found_by_another_image(case: Case) -> None:
    siblings = set()
    for hospital in case.hospitals:
        records = hospital.given.records
        gone = case.forgotten[hospital.name]
        honest_gone = np.setdiff1d(gone, case.canaries[hospital.name])
        for row in range(len(records)):
            if row not in gone and records.subject_ids[row] in records.subject_ids[honest_gone]:
                siblings.add(str(records.record_ids[row]))
    assert siblings
    found = scored(SamePatient(), Recognises(lambda _, some, row: str(some.records.record_ids[row]) in siblings), case)

    assert found.auroc == 1
    assert len(found.members) == len(siblings)
    assert scored(SamePatient(), Recognises(lambda *_: False), case).auroc == 0.5


def test_patients_with_one_image_each_leave_nothing_to_ask(case: Case) -> None:
    single = [
        replace(h, given=replace(h.given, records=replace(h.given.records, subject_ids=h.given.records.record_ids)))
        for h in case.hospitals
    ]

    assert not scored(SamePatient(), Recognises(lambda *_: True), replace(case, hospitals=single)).usable


def test_test_records_are_what_copies_are_told_from(case: Case) -> None:
    found = scored(NearDuplicates(), Recognises(lambda *_: True), case)

    tests = [h.given.split(Split.TEST) for h in case.hospitals if h.name in honest_records(case)]
    assert len(found.others) == sum(len(one.records) for one in tests)
