"""The closed form without a memory: ridge regression, the same whatever the division, and exact when it forgets."""

from __future__ import annotations

import numpy as np
import torch

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.feature_map import SCALE
from fedmunkey.simulations.federation.hospitals import Encoded, divide
from fedmunkey.simulations.unlearning.closed_form import ClosedForm, ClosedFormFamily, ClosedFormFederation
from tests.simulations.unlearning.small_case import BUDGET, small_case

SETTINGS = small_case().settings.replace(random_features=40)


def train(records: dict[str, Encoded]) -> ClosedFormFederation:
    return ClosedFormFamily().train(records, SETTINGS, small_case().shape)


def test_it_is_the_ridge_regression_of_all_records_together() -> None:
    records = small_case().everything()
    federation = train(records)
    release = federation.solved.release
    encodings = [one.encoding for one in records.values()]
    read = [release.feature_map.read(one.keys.numpy(), one.features.numpy()) for one in encodings]
    numbers = np.concatenate(read) / SCALE
    labels = np.eye(10)[np.concatenate([one.records.labels for one in records.values()])]

    penalty = release.choice.ridge * np.eye(numbers.shape[1])
    expected = np.linalg.solve(numbers.T @ numbers + penalty, numbers.T @ labels)

    assert np.allclose(release.weights / 2.0**20, expected, atol=1e-5)


def test_other_divisions_have_the_same_bytes_and_every_hospital_answers_alike() -> None:
    case = small_case()
    federation = train(case.everything())
    images = next(iter(case.hospitals)).given
    one = divide(images, 1, alpha=1.0, permanent=0.0, seed=9)[0].given.split(Split.TRAIN)
    two = [h.given.split(Split.TRAIN) for h in divide(images, 2, alpha=1.0, permanent=0.0, seed=9)]

    assert train({"all": one}).same_bytes(train({str(n): some for n, some in enumerate(two)}))
    assert not train({"all": one}).same_bytes(federation)
    test = images.split(Split.TEST)
    answers = [federation.answer(name, test) for name in sorted(federation.sites)]
    assert all(torch.equal(answers[0], other) for other in answers)
    assert torch.equal(answers[0], federation.weights_alone("hospital-1", test))


def test_after_forgetting_it_has_the_bytes_of_the_oracle() -> None:
    case = small_case()
    federation = train(case.everything())

    done = ClosedForm().forget(federation, case, BUDGET)

    assert isinstance(done.answers, ClosedFormFederation)
    assert done.answers.same_bytes(train(case.retained()))
    assert not done.answers.same_bytes(federation)
    assert done.bytes_sent == federation.sent_bytes > 0
