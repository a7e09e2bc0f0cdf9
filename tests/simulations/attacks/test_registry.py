"""Which attacks there are."""

from __future__ import annotations

from fedmunkey.simulations.attacks.registry import ATTACKS


def test_attacks_are_reported_in_order() -> None:
    assert list(ATTACKS) == ["loss-threshold", "weights-only", "likelihood-ratio", "differencing"]


def test_every_attack_says_what_it_is() -> None:
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert attack.title
        assert attack.question.endswith("?")
        assert "arXiv" in attack.paper


def test_only_the_likelihood_ratio_needs_shadows() -> None:
    assert [name for name, attack in ATTACKS.items() if attack.shadows] == ["likelihood-ratio"]
