"""What holds for every forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.errors import InvalidDeletion
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.hospitals import Hospital
from fedmunkey.simulations.forget_sets.forget_set import Drawn, ForgetSet
from fedmunkey.simulations.forget_sets.registry import FORGET_SETS

SHARE = 0.2
DRAWN = [name for name in FORGET_SETS if name != "sequence-50"]
"""Fifty deletions need more records than these hospitals have, and are drawn as ten are."""

BY_SHARE = [name for name in DRAWN if name != "site"]


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.replace(num_rounds=1)


def make(name: str, settings: Settings, shape: ModelShape) -> ForgetSet:
    return FORGET_SETS[name](settings, shape)


def ids(drawn: Drawn) -> list[list[str]]:
    """The record ids of each deletion."""
    return [
        [str(r) for h in drawn.hospitals for r in h.given.records.record_ids[rows[h.name]]] for rows in drawn.deletions
    ]


def with_consents(hospitals: Sequence[Hospital], permanent: float) -> list[Hospital]:
    return [replace(h, given=replace(h.given, records=donate(h.given.records, permanent, 0))) for h in hospitals]


def test_names_are_those_that_users_write(settings: Settings, shape: ModelShape) -> None:
    assert set(FORGET_SETS) == {
        "random",
        "subjects",
        "memorised",
        "canaries",
        "site",
        "sequence",
        "sequence-50",
        "random+canaries",
    }
    for name in FORGET_SETS:
        forget_set = make(name, settings, shape)
        assert forget_set.name == name
        assert forget_set.title


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_makes_a_case(name: str, hospitals: list[Hospital], quick: Settings, shape: ModelShape) -> None:
    before = [hospital.given.records.labels.copy() for hospital in hospitals]

    drawn = make(name, quick, shape).draw(hospitals, SHARE, 0)

    case = Case(drawn.hospitals, drawn.deletions, drawn.canaries, quick, shape)
    for hospital in case.hospitals:
        rows, train = case.forgotten[hospital.name], hospital.given.records.splits == Split.TRAIN.value
        assert train[rows].all()
        assert np.isin(drawn.canaries[hospital.name], rows).all()
        assert all((np.diff(deletion[hospital.name]) > 0).all() for deletion in drawn.deletions)
        assert name in ("site", "subjects") or len(rows) == round(SHARE * train.sum())
    # Honest forget sets plant nothing, and hospitals that were given stay as they are.
    assert "canaries" in name or (drawn.hospitals is hospitals and not any(map(len, drawn.canaries.values())))
    for hospital, labels in zip(hospitals, before, strict=True):
        assert (hospital.given.records.labels == labels).all()


@pytest.mark.parametrize("name", DRAWN)
def test_same_seed_draws_the_same_and_another_seed_others(
    name: str, hospitals: list[Hospital], quick: Settings, shape: ModelShape
) -> None:
    forget_set = make(name, quick, shape)

    first, same = (ids(forget_set.draw(hospitals, SHARE, 0)) for _ in range(2))
    others = [ids(forget_set.draw(hospitals, SHARE, seed)) for seed in (1, 2)]

    assert first == same
    assert any(other != first for other in others)


@pytest.mark.parametrize("name", BY_SHARE)
def test_permanent_records_stay(name: str, hospitals: list[Hospital], quick: Settings, shape: ModelShape) -> None:
    mixed = with_consents(hospitals, 0.5)

    drawn = make(name, quick, shape).draw(mixed, SHARE, 0)

    for hospital in mixed:
        for rows in drawn.deletions:
            consents = hospital.given.records.consents[rows[hospital.name]]
            assert set(consents.tolist()) <= {Consent.REVOCABLE.value}


@pytest.mark.parametrize("name", BY_SHARE)
@pytest.mark.parametrize(
    ("share", "permanent", "reason"),
    [
        (0.0, 0.0, "0 of the records cannot be forgotten; give a share between 0 and 1"),
        (1.0, 0.0, "1 of the records cannot be forgotten; give a share between 0 and 1"),
        (0.001, 0.0, "0.001 of the records is none at any hospital; forget a larger share"),
        (0.999, 0.0, "leaves hospital-1 no training record; forget fewer"),
        (0.6, 0.6, "cannot be forgotten, only .* may be; forget fewer, or make fewer permanent"),
    ],
)
def test_share_that_cannot_be_drawn_is_refused_before_anything_is_trained(
    name: str,
    share: float,
    permanent: float,
    reason: str,
    hospitals: list[Hospital],
    shape: ModelShape,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    monkeypatch.setattr("fedmunkey.simulations.forget_sets.most_memorised.PlainFamily", None)

    with pytest.raises(InvalidDeletion, match=reason) as caught:
        make(name, settings, shape).draw(with_consents(hospitals, permanent), share, 0)

    assert "\n" not in str(caught.value)
