from __future__ import annotations

from collections import Counter

import pytest

from fedmunkey.client.importing.splits import SplitRule
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.deletions.references import FederationSecret
from fedmunkey.common.errors import InvalidInput

SECRET = FederationSecret(b"a secret that sites share")
SUBJECTS = [SECRET.reference(f"subject-{number}") for number in range(4000)]


def test_subjects_are_divided_by_the_shares() -> None:
    counts = Counter(SplitRule(val=0.15, test=0.25).split_of(subject) for subject in SUBJECTS)

    # Four standard deviations of a binomial share of 4000 are at most 3.2%.
    assert counts[Split.VAL] / len(SUBJECTS) == pytest.approx(0.15, abs=0.032)
    assert counts[Split.TEST] / len(SUBJECTS) == pytest.approx(0.25, abs=0.032)


def test_subject_is_in_the_same_split_whenever_and_wherever_it_comes() -> None:
    rule = SplitRule()

    assert [rule.split_of(subject) for subject in SUBJECTS] == [SplitRule().split_of(subject) for subject in SUBJECTS]
    assert SplitRule(val=0, test=0).split_of(SUBJECTS[0]) is Split.TRAIN


def test_another_seed_divides_otherwise() -> None:
    first, second = ([SplitRule(seed).split_of(subject) for subject in SUBJECTS] for seed in (0, 1))

    assert sum(one is not other for one, other in zip(first, second, strict=True)) > 1000


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2), (0.1, 1.0), (float("nan"), 0.1)])
def test_shares_that_leave_nothing_to_train_on_are_refused(val: float, test: float) -> None:
    with pytest.raises(InvalidInput, match="leave no record to train on"):
        SplitRule(val=val, test=test)
