"""Which attacks there are."""

from __future__ import annotations

import pytest

from fedmunkey.common.errors import InvalidSetting
from fedmunkey.simulations.attacks.registry import ATTACKS, USUAL, chosen_attacks


def test_attacks_are_reported_in_order_and_say_what_they_are() -> None:
    assert list(ATTACKS) == [
        "loss-threshold",
        "weights-only",
        "linear-probe",
        "going-on",
        "near-duplicates",
        "label-only",
        "calibration",
        "other-hospitals",
        "same-patient",
        "combined",
        "likelihood-ratio",
        "relative-likelihood",
        "differencing",
    ]
    assert [name for name, attack in ATTACKS.items() if attack.shadows] == ["likelihood-ratio", "relative-likelihood"]
    assert [name for name, attack in ATTACKS.items() if attack.thorough] == ["near-duplicates", "label-only"]
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert attack.title
        assert attack.question.endswith("?")
        assert "arXiv" in attack.paper
        assert bool(attack.asked) == bool(attack.holds)


def test_attacks_are_chosen_by_name_or_all_that_are_quick() -> None:
    assert chosen_attacks([], thorough=False) == USUAL
    assert chosen_attacks([], thorough=True) == tuple(ATTACKS)
    # In the order of reports, whatever the order of the options, and thorough ones by name as well.
    assert chosen_attacks(["label-only", "loss-threshold"], thorough=False) == ("loss-threshold", "label-only")


def test_unknown_name_and_names_beside_thorough_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"^--attack magic: is unknown; choose from loss-threshold, "):
        chosen_attacks(["loss-threshold", "magic"], thorough=False)
    with pytest.raises(InvalidSetting, match="--thorough: means all attacks"):
        chosen_attacks(["label-only"], thorough=True)
