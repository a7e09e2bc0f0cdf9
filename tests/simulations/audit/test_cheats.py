"""Cheats that an audit has to catch: each is flagged by its own verdict, and an honest deletion by none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.client.records.dataset import Dataset
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.attacks.altered.alterations import altered
from fedmunkey.simulations.attacks.going_on import go_on
from fedmunkey.simulations.attacks.registry import ATTACKS
from fedmunkey.simulations.audit import trial as trial_module
from fedmunkey.simulations.audit.key_stores import delete_in_key_stores, delete_in_solved_stores
from fedmunkey.simulations.audit.record_verdicts import Verdict
from fedmunkey.simulations.audit.trial import Trial, audit_case
from fedmunkey.simulations.audit.verdicts import judge
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.solved_federation import SolvedFederation
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS
from fedmunkey.simulations.unlearning.method import Budget, Forgotten, Method, SiteRecords
from fedmunkey.simulations.unlearning.munkey import KeyDeletion, MunkeyFederation, SolvedDeletion
from fedmunkey.simulations.unlearning.plain.nothing import Nothing
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily, PlainFederation
from fedmunkey.simulations.unlearning.retraining import Retraining
from tests.simulations.given_records import train_rows

BUDGET = Budget(1)
_TRAINED: dict[tuple[object, ...], tuple[PlainFederation, list[tuple[int, Any]]]] = {}


@pytest.fixture(autouse=True)
def _trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train no federation twice: the cheats are in what is done with the same few."""
    train = PlainFamily.train

    def train_once(
        family: PlainFamily, records: SiteRecords, settings: Settings, shape: Any, *, after_round: Any = None
    ) -> PlainFederation:
        learned = tuple(
            (name, some.records.record_ids.tobytes(), some.records.labels.tobytes()) for name, some in records.items()
        )
        asked = (learned, repr(settings.replace(sites_dir="", output_dir="")), shape)
        if asked not in _TRAINED:
            rounds: list[tuple[int, Any]] = []
            _TRAINED[asked] = train(family, records, settings, shape, after_round=lambda *it: rounds.append(it)), rounds
        trained, rounds = _TRAINED[asked]
        for number, answers in rounds if after_round else ():
            after_round(number, answers)
        return trained

    monkeypatch.setattr(PlainFamily, "train", train_once)


@pytest.fixture
def memorising(settings: Settings) -> Settings:
    """Train for so long that every record is known by heart."""
    return settings.replace(num_rounds=10, local_epochs=15, label_smoothing=0.0, width=32, learning_rate=5e-3)


@pytest.fixture
def case(hospitals: Sequence[Hospital], memorising: Settings, shape: Any) -> Case:
    """A third of the records is forgotten, a fifth of these are canaries."""
    drawn = FORGET_SETS["random+canaries"](memorising, shape).draw(hospitals, 0.35, 0)
    return Case(drawn.hospitals, drawn.deletions, drawn.canaries, memorising, replace(shape, width=32))


def flagged(trials: Sequence[Trial], guarantee: Guarantee | None = None) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in judge(trials, guarantee) if not verdict.passed}


def test_deletion_that_does_nothing_is_flagged(case: Case) -> None:
    found = audit_case(case, Nothing(), 0, BUDGET)

    by_name = flagged([found])
    assert {"confidences", "weights", "canaries"} <= by_name.keys()
    assert "remembered" in by_name["confidences"].sentence


def test_audit_has_power_where_records_are_memorised(case: Case) -> None:
    found = audit_case(case, Nothing(), 0, BUDGET)

    scores = found.scores["loss-threshold"]
    assert scores["after"].auroc >= 0.65
    assert scores["after"].auroc > scores["oracle"].auroc + 0.1


def test_canaries_that_were_learned_by_heart_are_found(
    hospitals: Sequence[Hospital], memorising: Settings, shape: Any
) -> None:
    drawn = FORGET_SETS["canaries"](memorising, shape).draw(hospitals, 0.2, 0)
    case = Case(drawn.hospitals, drawn.deletions, drawn.canaries, memorising, replace(shape, width=32))

    found = audit_case(case, Nothing(), 0, BUDGET)

    assert found.known["after"].canary_recall >= 80
    assert found.known["oracle"].canary_recall < 40
    assert flagged([found]).keys() == {"canaries"}


@dataclass(frozen=True)
class Silenced:
    """Answers as another federation does, but denies the labels of some records."""

    inner: PlainFederation
    hidden: frozenset[str]

    @property
    def sites(self) -> frozenset[str]:
        return self.inner.sites

    def answer(self, site: str, records: Encoded) -> Tensor:
        said = self.inner.answer(site, records).clone()
        for row, name in enumerate(records.records.record_ids.tolist()):
            if name in self.hidden:
                label = int(records.records.labels[row])
                said[row] = (1 - 1e-3) / (said.shape[1] - 1)
                said[row, label] = 1e-3
        return said

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        return self.answer(site, records)


class OverForgetting(Method[PlainFederation]):
    """Lowers the forgotten records' confidence, far below what a federation has that never saw them."""

    name, title, paper = "silence", "silence", "none"
    family = PlainFamily()
    needs_data = retrains = False

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        del budget
        gone = case.forget_records().values()
        return Forgotten(Silenced(trained, frozenset(n for r in gone for n in r.records.record_ids.tolist())), 0)


def test_over_forgetting_is_flagged(case: Case) -> None:
    by_name = flagged([audit_case(case, OverForgetting(), 0, BUDGET)])

    assert {"confidences", "weights", "attacks"} <= by_name.keys()
    assert "over-forgotten" in by_name["confidences"].sentence


def test_retraining_passes(case: Case) -> None:
    assert flagged([audit_case(case, Retraining(), 0, BUDGET)]) == {}


@pytest.mark.parametrize("renamed", [False, True])
def test_oracle_that_saw_a_forgotten_record_is_flagged(
    case: Case, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    honest = Case.retained

    def careless(self: Case) -> dict[str, Encoded]:
        kept = honest(self)
        name = next(name for name, rows in self.forgotten.items() if len(rows))
        (place,) = (h for h in self.hospitals if h.name == name)
        train = train_rows(place)
        gone = self.forgotten[name][:1]
        some = place.given.select(np.sort(np.concatenate([np.setdiff1d(train, self.forgotten[name]), gone])))
        if renamed:
            ids = np.array([f"{record}-again" for record in some.records.record_ids])
            some = Encoded(replace(some.records, record_ids=ids), some.encoding)
        return {**kept, name: some}

    # The check has its own idea of what stays, or it would believe whoever feeds the oracle.
    monkeypatch.setattr(trial_module, "retained_for_oracle", careless)

    by_name = flagged([audit_case(case, Nothing(), 0, BUDGET)])

    assert by_name["oracle"].figures["seen"] == 1


def test_bank_that_kept_an_entry_is_flagged(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = delete_in_key_stores

    def careless(trained: MunkeyFederation, case: Case, *others: Any) -> tuple[MunkeyFederation, float]:
        less = {name: rows[1:] if len(rows) else rows for name, rows in case.deletions[0].items()}
        return honest(trained, replace(case, deletions=[less]), *others)

    monkeypatch.setattr(trial_module, "delete_in_key_stores", careless)
    places = sum(len(rows) > 0 for rows in case.forgotten.values())

    by_name = flagged([audit_case(case, KeyDeletion(Guarantee.EMPIRICAL), 0, BUDGET)])

    assert by_name["banks"].figures["kept"] == places


def test_exact_deletion_passes_and_has_the_oracles_bytes(case: Case) -> None:
    settings = case.settings.replace(guarantee="exact", random_features=50)

    found = audit_case(replace(case, settings=settings), SolvedDeletion(), 0, BUDGET)

    assert found.identical is True
    assert found.kept == 0
    assert flagged([found], Guarantee.EXACT) == {}
    assert torch.equal(
        torch.tensor(found.known["after"].forget_confidence), torch.tensor(found.known["oracle"].forget_confidence)
    )


def test_exact_claim_of_another_state_is_flagged(case: Case) -> None:
    found = audit_case(case, KeyDeletion(Guarantee.EMPIRICAL), 0, BUDGET)

    assert "bytes" in flagged([found], Guarantee.EXACT)


def test_solved_weights_that_were_not_renewed_are_flagged(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = delete_in_solved_stores

    def careless(trained: SolvedFederation, *others: Any) -> tuple[SolvedFederation, float]:
        left, seconds = honest(trained, *others)
        return replace(left, release=trained.release), seconds

    monkeypatch.setattr(trial_module, "delete_in_solved_stores", careless)
    settings = case.settings.replace(guarantee="exact", random_features=50)

    found = audit_case(replace(case, settings=settings), SolvedDeletion(), 0, BUDGET)

    assert "bytes" in flagged([found], Guarantee.EXACT)


class NearCopies(Method[PlainFederation]):
    """Trains again without the forgotten records, but with copies of them that were mirrored."""

    name, title, paper = "copies", "copies", "none"
    family = PlainFamily()
    needs_data = retrains = True

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        del trained, budget
        copies = altered(case).members["mirrored"]
        kept = {name: _joined(some, copies[name]) if name in copies else some for name, some in case.retained().items()}
        return Forgotten(self.family.train(kept, case.settings, case.shape), 0)


def _joined(some: Encoded, copies: Encoded) -> Encoded:
    """Return records and, under other ids, copies of others."""
    first, more = some.records, copies.records
    ids = np.array([f"copy-{record}" for record in more.record_ids])
    records = Dataset(
        np.concatenate([first.images, more.images]),
        np.concatenate([first.labels, more.labels]),
        np.concatenate([first.record_ids, ids]),
        np.concatenate([first.subject_ids, ids]),
        np.concatenate([first.splits, more.splits]),
        np.concatenate([first.consents, more.consents]),
        first.class_names,
    )
    encodings = some.encoding, copies.encoding
    return Encoded(
        records, Encoding(torch.cat([e.keys for e in encodings]), torch.cat([e.features for e in encodings]))
    )


def test_kept_copies_are_flagged_by_near_duplicates(case: Case) -> None:
    asked = ["loss-threshold", "near-duplicates", "label-only"]

    seeds = [case, case.with_seed(1), case.with_seed(2)]

    by_name = flagged([audit_case(one, NearCopies(), 0, BUDGET, asked) for one in seeds])
    honest = flagged([audit_case(one, Retraining(), 0, BUDGET, asked) for one in seeds])

    assert "near-duplicates" in by_name
    assert "Asked about slightly changed copies" in by_name["near-duplicates"].sentence
    assert honest == {}


@dataclass(frozen=True)
class Masked:
    """Answers as a federation that never saw the records, and has the weights of one that did."""

    shown: PlainFederation
    weights: PlainFederation

    @property
    def sites(self) -> frozenset[str]:
        return self.shown.sites

    def answer(self, site: str, records: Encoded) -> Tensor:
        return self.shown.answer(site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        return self.shown.weights_alone(site, records)


@go_on.register
def _masked(answers: Masked, case: Case) -> Answers | None:
    return go_on(answers.weights, case)


class Masking(Method[PlainFederation]):
    """Hides what the weights know until the federation goes on with them."""

    name, title, paper = "masking", "masking", "none"
    family = PlainFamily()
    needs_data, retrains = True, False

    def forget(self, trained: PlainFederation, case: Case, budget: Budget) -> Forgotten:
        del budget
        return Forgotten(Masked(self.family.train(case.retained(), case.settings, case.shape), trained), 0)


def test_what_was_only_hidden_is_flagged_once_the_federation_goes_on(case: Case) -> None:
    asked = ["loss-threshold", "weights-only", "going-on"]
    seeds = [case, case.with_seed(1), case.with_seed(2)]

    by_name = flagged([audit_case(one, Masking(), 0, BUDGET, asked) for one in seeds])
    honest = flagged([audit_case(one, Retraining(), 0, BUDGET, asked) for one in seeds])

    assert "going-on" in by_name
    assert "remembered" in by_name["going-on"].sentence
    assert not {"confidences", "weights", "subgroups", "vulnerable"} & by_name.keys()
    assert honest == {}


def test_exact_deletion_passes_every_attack(case: Case) -> None:
    settings = case.settings.replace(guarantee="exact", random_features=50)

    found = audit_case(replace(case, settings=settings), SolvedDeletion(), 4, BUDGET, tuple(ATTACKS))

    assert found.scores.keys() == ATTACKS.keys()
    assert flagged([found], Guarantee.EXACT) == {}
