"""Each guarantee learns from the records that it allows, as it allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.records.dataset import Consent, Split
from fedmunkey.common.model.encoders import Encoding
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.federated_loop import Learned, learn
from fedmunkey.simulations.federation.hospitals import Encoded
from fedmunkey.simulations.federation.solved_federation import solve_records

Learn = Callable[..., Learned]


@pytest.fixture
def asked(settings: Settings) -> Settings:
    return settings.replace(image_path="frozen", depth=0, epsilon=5.0, delta=1e-3)


@pytest.fixture
def sites(everything: Encoded) -> dict[str, Encoded]:
    """Two sites' training records, half of them permanent."""
    donated = donate(everything.records, 0.5, seed=0)
    train = replace(everything, records=donated).split(Split.TRAIN)
    return {"hospital-1": train.select(np.arange(0, 30)), "hospital-2": train.select(np.arange(30, 60))}


@pytest.fixture
def learned(asked: Settings) -> Learn:
    def learned(sites: dict[str, Encoded], guarantee: Guarantee, **changes: object) -> Learned:
        settings = asked.replace(guarantee=guarantee.value, **changes)
        return learn(sites, settings, choose_shape(settings))

    return learned


def spoil(sites: dict[str, Encoded], consent: Consent) -> dict[str, Encoded]:
    """Give some records another label, another key and other features."""

    def spoiled(some: Encoded) -> Encoded:
        chosen = torch.from_numpy(some.records.consents == consent.value)
        labels = np.where(chosen.numpy(), (some.records.labels + 5) % 10, some.records.labels)
        keys, features = some.encoding.keys.clone(), some.encoding.features.clone()
        keys[chosen], features[chosen] = keys[chosen].flip(1), features[chosen].flip(-1)
        return Encoded(replace(some.records, labels=labels), Encoding(keys, features))

    return {name: spoiled(some) for name, some in sites.items()}


def weights(found: Learned) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in found.model.state_dict().values()])


def test_under_exact_revocable_records_move_nothing_where_only_permanent_ones_teach(
    sites: dict[str, Encoded], asked: Settings
) -> None:
    settings = asked.replace(guarantee="exact", learns_from="permanent")
    clean, spoiled, others = (
        solve_records(some, settings, choose_shape(settings)).release.digest()
        for some in (sites, spoil(sites, Consent.REVOCABLE), spoil(sites, Consent.PERMANENT))
    )

    assert clean == spoiled
    # The same in records that do teach the shared weights changes them.
    assert clean != others


def test_every_entry_has_a_token_that_fits_the_shared_weights(sites: dict[str, Encoded], learned: Learn) -> None:
    found = learned(sites, Guarantee.CERTIFIED)

    for name, bank in found.banks.items():
        assert len(bank) == len(sites[name].records)
        assert torch.equal(bank.tokens.offsets, own_tokens(found.model, bank.inputs).offsets)


def test_noise_is_the_same_for_the_same_seed_only(sites: dict[str, Encoded], learned: Learn) -> None:
    first, same, other = (weights(learned(sites, Guarantee.CERTIFIED, seed=seed)) for seed in (0, 0, 1))

    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_less_privacy_is_less_noise(sites: dict[str, Encoded], learned: Learn) -> None:
    without = weights(learned(sites, Guarantee.CERTIFIED, epsilon=math.inf))

    distances = [
        float((weights(learned(sites, Guarantee.CERTIFIED, epsilon=epsilon)) - without).norm())
        for epsilon in (50.0, 0.5)
    ]

    assert distances[1] > 10 * distances[0] > 0


def test_site_without_records_takes_no_part(sites: dict[str, Encoded], learned: Learn) -> None:
    nobody = {**sites, "hospital-3": sites["hospital-1"].select(np.empty(0, dtype=np.int64))}

    with_it, without = (learned(some, Guarantee.CERTIFIED) for some in (nobody, sites))

    assert torch.equal(weights(with_it), weights(without))
    assert len(with_it.banks["hospital-3"]) == 0
