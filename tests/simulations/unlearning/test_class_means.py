"""SPM-C reads records through class means only: labels may be permuted, and a record is taken out of its mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.unlearning.class_means import (
    ClassMeans,
    ClassMeansFamily,
    ClassMeansFederation,
    ClassSums,
    Projection,
    read,
    total,
)
from tests.simulations.unlearning.small_case import BUDGET, accuracy, small_case


@pytest.fixture(scope="module")
def federation() -> ClassMeansFederation:
    case = small_case()
    return ClassMeansFamily().train(case.everything(), case.settings, case.shape)


def test_means_are_those_of_all_hospitals_records(federation: ClassMeansFederation) -> None:
    records = small_case().everything()
    numbers = torch.cat([read(some) for some in records.values()])
    labels = np.concatenate([some.records.labels for some in records.values()])

    for label in np.unique(labels):
        assert torch.allclose(federation.means[label], numbers[labels == label].mean(0), atol=1e-6)


def test_means_after_forgetting_are_those_without_the_records_to_the_last_bit_and_weights_stay(
    federation: ClassMeansFederation,
) -> None:
    case = small_case()

    left = ClassMeans().forget(federation, case, BUDGET).answers

    assert isinstance(left, ClassMeansFederation)
    clean = total({name: ClassSums.of(some, 10) for name, some in case.retained().items()})
    assert torch.equal(left.means, clean.means)
    assert not torch.equal(left.means, federation.means)
    assert left.model is federation.model


def test_permuted_labels_permute_the_answers_and_change_nothing_else(federation: ClassMeansFederation) -> None:
    """The papers' reason for permuting labels: no weight may know what a class is called."""
    case, order = small_case(), np.random.default_rng(0).permutation(10)

    def renamed(some: Encoded) -> Encoded:
        return replace(some, records=replace(some.records, labels=order[some.records.labels]))

    records = {name: renamed(some) for name, some in case.everything().items()}
    other = ClassMeansFamily().train(records, case.settings, case.shape)

    name, some = next(iter(case.everything().items()))
    assert torch.allclose(other.answer(name, some)[:, order], federation.answer(name, some), atol=2e-3)


def test_it_learns(federation: ClassMeansFederation) -> None:
    case = small_case()
    untrained = ClassMeansFederation(Projection(federation.means.shape[1], 32), federation.sums)

    assert accuracy(federation, case.everything()) > max(0.8, accuracy(untrained, case.everything()))


def test_training_compares_a_record_with_a_mean_that_it_has_no_part_in() -> None:
    """A class of one record has no mean left for it, so its step has no gradient towards itself."""
    case = small_case()
    records = next(iter(case.everything().values()))
    rows = np.unique(records.records.labels, return_index=True)[1]
    single = records.select(np.sort(rows))

    federation = ClassMeansFamily().train({"only": single}, case.settings.replace(num_rounds=1), case.shape)

    assert all(bool(torch.isfinite(weight).all()) for weight in federation.model.state_dict().values())


def test_hospital_of_which_all_is_forgotten_is_left_out(federation: ClassMeansFederation) -> None:
    case = small_case(whole_site=True)

    assert len(ClassMeans().forget(federation, case, BUDGET).answers.sites) == 2
