from __future__ import annotations

import pytest

from fedmunkey.common.privacy.guarantees import Guarantee


@pytest.mark.parametrize("guarantee", Guarantee)
def test_every_guarantee_says_what_remains(guarantee: Guarantee) -> None:
    assert guarantee.remains


def test_only_exact_claims_that_nothing_remains() -> None:
    assert [guarantee for guarantee in Guarantee if guarantee.remains.startswith("nothing")] == [Guarantee.EXACT]


def test_guarantees_come_strongest_first() -> None:
    assert list(Guarantee) == [Guarantee.EXACT, Guarantee.CERTIFIED, Guarantee.EMPIRICAL]
