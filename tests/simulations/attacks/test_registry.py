"""Which attacks there are."""

from __future__ import annotations

from fedmunkey.simulations.attacks.registry import ATTACKS


def test_attacks_are_reported_in_order_and_say_what_they_are() -> None:
    assert list(ATTACKS) == ["loss-threshold", "weights-only", "likelihood-ratio", "differencing"]
    assert [name for name, attack in ATTACKS.items() if attack.shadows] == ["likelihood-ratio"]
    for name, attack in ATTACKS.items():
        assert attack.name == name
        assert attack.title
        assert attack.question.endswith("?")
        assert "arXiv" in attack.paper
