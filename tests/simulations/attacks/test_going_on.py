"""Going on after forgetting: what was only hidden comes back, what is gone does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.simulations.attacks.attack import Attacked
from fedmunkey.simulations.attacks.going_on import GoingOn, go_on
from fedmunkey.simulations.federation.answers import Answers
from fedmunkey.simulations.federation.case import Case
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.munkey import MunkeyFamily, SolvedFamily
from fedmunkey.simulations.unlearning.plain_federation import PlainFamily
from tests.simulations.attacks.conftest import Tell


@dataclass(frozen=True)
class Hidden:
    """Says what one federation does until it goes on, and then what another one does."""

    shown: Answers
    inner: Answers
    sites: frozenset[str] = frozenset()

    def answer(self, site: str, records: Encoded) -> Tensor:
        return self.shown.answer(site, records)

    def weights_alone(self, site: str, records: Encoded) -> Tensor:
        return self.shown.weights_alone(site, records)


@go_on.register
def _hidden(answers: Hidden, case: Case) -> Answers:
    del case
    return answers.inner


def test_federation_that_had_only_hidden_what_it_knew_is_found_out(case: Case, told: Tell, honest: list[str]) -> None:
    state = Hidden(told({}), told(dict.fromkeys(honest, 0.9)))

    assert GoingOn().score(Attacked(state, state), case, []).auroc == 1


def test_federation_that_had_nothing_to_hide_gives_nothing_away(case: Case, told: Tell) -> None:
    state = Hidden(told({}), told({}))

    assert GoingOn().score(Attacked(state, state), case, []).auroc == 0.5


def test_federation_that_cannot_go_on_has_no_scores(case: Case, told: Tell) -> None:
    state = told({})

    assert go_on(state, case) is None
    assert not GoingOn().score(Attacked(state, state), case, []).usable


@pytest.mark.parametrize(
    "family", [MunkeyFamily(Guarantee.EMPIRICAL), MunkeyFamily(Guarantee.CERTIFIED), PlainFamily()]
)
def test_who_descends_learns_on_from_retained_records_alone_and_the_state_stays(family: Any, case: Case) -> None:
    state = family.train(case.retained(), case.settings, case.shape)
    before = {name: weight.clone() for name, weight in state.model.state_dict().items()}

    further: Any = go_on(state, case)

    assert all(torch.equal(weight, before[name]) for name, weight in state.model.state_dict().items())
    after = further.model.state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())
    assert all(torch.isfinite(weight).all() for weight in after.values())
    # What was forgotten is not there to be learned from: other images and labels there change nothing.
    torn = [_with_noise(h, case) for h in case.hospitals]
    again: Any = go_on(state, replace(case, hospitals=torn))
    assert all(torch.equal(weight, after[name]) for name, weight in again.model.state_dict().items())


def _with_noise(hospital: Any, case: Case) -> Any:
    encoding = hospital.given.encoding
    rows = torch.from_numpy(case.forgotten[hospital.name])
    keys, features = encoding.keys.clone(), encoding.features.clone()
    keys[rows], features[rows] = 0.5, 0.5
    images = hospital.given.records.images.copy()
    images[case.forgotten[hospital.name]] = 7
    records = replace(hospital.given.records, images=images)
    return replace(hospital, given=Encoded(records, replace(encoding, keys=keys, features=features)))


def test_next_release_of_solved_weights_is_the_same_where_these_were_renewed_and_mends_them_where_not(
    case: Case,
) -> None:
    settings = case.settings.replace(guarantee="exact", random_features=50)
    family, case = SolvedFamily(), replace(case, settings=settings)
    oracle = family.train(case.retained(), settings, case.shape)
    old = family.train(case.everything(), settings, case.shape)
    stale = replace(oracle, release=old.release)

    renewed: Any = go_on(oracle, case)
    mended: Any = go_on(stale, case)

    assert not stale.same_bytes(oracle)
    assert renewed.same_bytes(oracle)
    assert mended.same_bytes(oracle)
    kept: Any = go_on(old, case)
    assert not kept.same_bytes(oracle)
    assert np.isfinite(GoingOn().score(Attacked(old, old), case, []).members).all()
