"""Local training on a bank that is made here, without a key store."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fedmunkey.client.key_store import Tokens
from fedmunkey.client.learning.bank import Bank
from fedmunkey.client.learning.noisy_step import noisy_gradients
from fedmunkey.client.learning.secret_noise import SecretNoise
from fedmunkey.client.learning.training import Trained, train
from fedmunkey.client.records.dataset import Consent
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.model.neighbours import NeighbourLists, nearest
from fedmunkey.common.model.randomness import generator
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.noisy_steps import NoisySteps
from fedmunkey.common.settings.settings import ImagePath, Settings
from tests.client.conftest import Encode, MakeRecords

MakeBank = Callable[..., Bank]
LENGTH = 6


@pytest.fixture
def make_bank(make_records: MakeRecords, encode_records: Encode) -> Callable[..., Bank]:
    """Return a function that makes a bank of some records, untrained."""

    def make(count: int, *, own: bool = False, permanent: bool = False) -> Bank:
        records = make_records(range(count), consent=Consent.PERMANENT if permanent else Consent.REVOCABLE)
        # A record's class can be seen in its image.
        records.images[:] = records.images // 8 + (records.labels * 50).astype(np.uint8)[:, None, None, None]
        keys = encode_records(records).keys
        without = torch.full((count,), -1) if own else torch.arange(count)
        lists = nearest(keys, keys, LENGTH, own=without) if count else NeighbourLists.empty(0, LENGTH)
        return Bank(
            0,
            np.arange(1, count + 1),
            torch.from_numpy(records.labels),
            torch.from_numpy(records.images),
            Tokens.zeros(count, 8),
            lists,
            torch.from_numpy(records.consents == Consent.PERMANENT.value),
        )

    return make


@pytest.fixture
def model() -> Munkey:
    return make_model(depth=1)


def make_model(depth: int) -> Munkey:
    torch.manual_seed(0)
    return Munkey(ModelShape(ImagePath.PATCHES, (1, 8, 8), 2, 4, 16, depth, 2, 8))


LINEAR = {"linear.weight", "linear.bias"}
ALL = {name for name, _ in make_model(depth=1).named_parameters()}


def run(model: Munkey, bank: Bank, settings: Settings, *, seed: int = 0, **options: object) -> Trained:
    chosen = {"round_number": 1, "generator": generator(seed), **options}
    recipe = Recipe.of(settings.replace(depth=model.shape.depth))
    return train(model, bank, recipe, **chosen)  # type: ignore[arg-type]


def changed(model: Munkey, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}


def test_loss_falls(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    bank = make_bank(32)
    settings = small.replace(learning_rate=0.01, label_smoothing=0.0, image_dropout=0.0, memory_dropout=0.0)

    losses = [run(model, bank, settings, seed=seed).loss for seed in range(8)]

    assert losses[0] > 1
    assert losses[-1] < losses[0] / 2


def test_every_shared_weight_learns(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    before = copy.deepcopy(model.state_dict())

    trained = run(model, make_bank(32), small.replace(local_epochs=3))

    assert trained.examples == 32
    assert changed(model, before) == set(before)
    assert not model.training


def test_same_seed_gives_the_same_weights_and_tokens(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    results = []
    for seed in (3, 3, 4):
        bank, local = make_bank(20), copy.deepcopy(model)
        loss = run(local, bank, small, seed=seed).loss
        results.append((loss, local.head.weight, bank.tokens.offsets))

    first, second, other = results
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[2], second[2])
    assert first[0] != other[0]
    assert not torch.equal(first[2], other[2])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bank_may_be_smaller_than_k(make_bank: MakeBank, model: Munkey, small: Settings, count: int) -> None:
    settings = small.replace(neighbours=5, training_members=4, local_epochs=4, memory_dropout=0.0)
    bank = make_bank(count)

    trained = run(model, bank, settings)

    assert math.isfinite(trained.loss)
    assert trained.examples == count
    assert (bank.tokens.steps > 0).all()


def test_learning_rates_fall_along_a_half_cosine(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    # The first step of Adam is as long as its learning rate, whatever the gradient.
    settings = small.replace(num_rounds=3, batch_size=64, weight_decay=0.0)
    lengths = []
    for round_number in (1, 2, 3):
        bank, local = make_bank(20), copy.deepcopy(model)
        run(local, bank, settings, round_number=round_number)
        lengths.append(
            [
                float((local.head.bias - model.head.bias).detach().abs().max()) / settings.learning_rate,
                float(bank.tokens.offsets.abs().max()) / settings.exemplar_learning_rate,
            ]
        )

    expected = [[0.5 * (1 + math.cos(math.pi * done / 3))] * 2 for done in range(3)]
    assert np.allclose(lengths, expected, rtol=0.01)


# Tokens.


def test_only_tokens_that_were_read_change(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    bank = make_bank(40)
    settings = small.replace(neighbours=1, training_members=1, self_retrieval=0.0, memory_dropout=0.0)
    neighbours = set(bank.lists.indices[:, 0].tolist())
    assert 1 < len(neighbours) < 40

    run(model, bank, settings)

    moved = {row for row in range(40) if bank.tokens.offsets[row].any()}
    assert moved == neighbours
    assert set(bank.tokens.steps.nonzero().flatten().tolist()) == neighbours


@pytest.mark.parametrize(
    ("count", "changes", "steps"),
    [
        pytest.param(20, {"self_retrieval": 1.0, "memory_dropout": 0.0}, 3, id="own-entry-in-every-step"),
        pytest.param(1, {"self_retrieval": 0.0, "memory_dropout": 0.0}, 0, id="own-entry-never"),
        pytest.param(20, {"memory_dropout": 0.999}, 0, id="memory-dropped"),
        pytest.param(20, {"exemplar_learning_rate": 0.0}, 0, id="rate-of-zero"),
    ],
)
def test_token_moves_in_the_steps_that_read_it(
    make_bank: MakeBank, model: Munkey, small: Settings, count: int, changes: dict[str, float], steps: int
) -> None:
    bank = make_bank(count)

    run(model, bank, small.replace(training_members=1, local_epochs=3, **changes))

    assert bank.tokens.steps.tolist() == [steps] * count
    assert bank.tokens.offsets.any() == (steps > 0)


def test_members_of_one_record_are_different_entries(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    # Three entries, so two neighbours each: with two members, every entry is read by both others in every step.
    bank = make_bank(3)
    read: list[torch.Tensor] = []
    model.exemplars = lambda labels, offsets: read.append(labels) or model.label_embedding[labels] + offsets  # type: ignore[method-assign,func-returns-value]

    run(model, bank, small.replace(training_members=2, self_retrieval=0.0, local_epochs=5))

    assert all(len(set(row)) == 2 for labels in read for row in labels.tolist())


# The proximal term.


def test_proximal_term(make_bank: MakeBank, model: Munkey, small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    mu, start = 0.7, [weight.detach().clone() for weight in model.parameters()]
    steps: list[float] = []
    seen: dict[float, list[list[torch.Tensor]]] = {0.0: [], mu: []}
    original = torch.optim.AdamW.step

    for weight in (0.0, mu):
        local, bank = copy.deepcopy(model), make_bank(8)

        def away(_optimiser: torch.optim.AdamW, local: Munkey = local, weight: float = weight) -> None:
            # Gradients are noted, then the weights are put somewhere that both runs share.
            gradients = [parameter.grad for parameter in local.parameters()]
            seen[weight].append([gradient.clone() for gradient in gradients if gradient is not None])
            with torch.no_grad():
                for parameter, before in zip(local.parameters(), start, strict=True):
                    parameter.copy_(before + 0.01 * len(seen[weight]))
            steps.append(weight)

        monkeypatch.setattr(torch.optim.AdamW, "step", away)
        settings = small.replace(local_epochs=3, exemplar_learning_rate=0.0)
        run(local, bank, settings, proximal_mu=weight)

    monkeypatch.setattr(torch.optim.AdamW, "step", original)
    assert len(seen[mu]) == 3
    for done, (plain, proximal) in enumerate(zip(seen[0.0], seen[mu], strict=True)):
        weights: list[torch.Tensor] = [(before + 0.01 * done).requires_grad_() for before in start]
        squares = [((weight - before) ** 2).sum() for weight, before in zip(weights, start, strict=True)]
        term = mu / 2 * torch.stack(squares).sum()
        term.backward()
        for without, with_term, moved in zip(plain, proximal, weights, strict=True):
            assert moved.grad is not None
            assert torch.allclose(with_term - without, moved.grad, atol=1e-5)


# Exact.


def test_what_is_solved_for_is_not_trained(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    bank, before = make_bank(20, permanent=True), copy.deepcopy(model.state_dict())

    with pytest.raises(ValueError, match="exact is solved for, not trained"):
        run(model, bank, small.replace(guarantee="exact"), secret=secret())

    assert changed(model, before) == set()


# Certified.


def noisy(small: Settings, **changes: object) -> Settings:
    return small.replace(guarantee="certified", **changes)


def secret(key: int = 0) -> SecretNoise:
    return SecretNoise(bytes([key] * 32), "training", 1)


@pytest.mark.parametrize(
    ("depth", "changes", "moved"),
    [
        (0, {"guarantee": "certified"}, LINEAR),
        (1, {"guarantee": "certified"}, LINEAR),
        (0, {"guarantee": "empirical", "exemplar_tokens": "own"}, ALL),
        (1, {"guarantee": "empirical", "exemplar_tokens": "own"}, ALL),
    ],
)
def test_route_says_which_weights_move_and_leaves_tokens_alone(
    make_bank: MakeBank, small: Settings, depth: int, changes: dict[str, str], moved: set[str]
) -> None:
    bank, model, before = make_bank(20, permanent=True), make_model(depth), make_model(depth).state_dict()

    trained = run(model, bank, small.replace(local_epochs=3, **changes), secret=secret())

    assert trained.examples == 20
    assert changed(model, before) == moved & set(before)
    assert not bank.tokens.steps.any()
    assert bank.tokens.offsets.any() == (moved == ALL)
    assert not model.training


def test_certified_reads_no_neighbour_and_no_token(make_bank: MakeBank, small: Settings) -> None:
    results = []
    for seed in (0, 1):
        bank, model = make_bank(20), make_model(1)
        draws = torch.Generator().manual_seed(seed)
        bank.tokens.offsets[:] = torch.randn(20, 8, generator=draws)
        bank.lists.indices[:] = torch.randint(0, 20, bank.lists.indices.shape, generator=draws)
        offsets = bank.tokens.offsets.clone()
        run(model, bank, noisy(small), secret=secret())
        assert torch.equal(bank.tokens.offsets, offsets)
        results.append(model.state_dict())

    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_certified_step_is_a_step_along_the_mean_of_clipped_gradients(make_bank: MakeBank, small: Settings) -> None:
    # Without noise, so that the gradient is seen.
    settings = noisy(small, epsilon=math.inf, local_steps=1, clipping_norm=0.3, clipped_learning_rate=0.5, num_rounds=3)
    bank = make_bank(20)
    expected, _ = noisy_gradients(
        make_model(0),
        {name: weight.detach() for name, weight in make_model(0).named_parameters()},
        bank.inputs,
        bank.labels,
        spending=NoisySteps(1, 1.0, 0.0),
        settings=settings,
        secret=secret(),
    )
    for round_number in (1, 2, 3):
        model, rate = make_model(0), 0.25 * (1 + math.cos(math.pi * (round_number - 1) / 3))

        run(model, bank, settings, secret=secret(), round_number=round_number)

        for name, start in make_model(0).named_parameters():
            step = -rate * expected[name] if name.startswith("linear.") else torch.zeros_like(start)
            assert torch.allclose(model.state_dict()[name] - start, step, atol=1e-6), name
    assert expected["linear.weight"].abs().max() > 1e-3


def moved_by(row: int, make_bank: MakeBank, settings: Settings) -> float:
    """Return how far one of 20 records moves the sum of the gradients, where the learning rate is 1."""

    def summed(rows: list[int]) -> torch.Tensor:
        bank, model = make_bank(20).select(np.array(rows), NeighbourLists.empty(len(rows), LENGTH)), make_model(0)
        run(model, bank, settings, secret=secret())
        start = make_model(0).linear
        moved = [(model.linear.weight - start.weight).flatten(), model.linear.bias - start.bias]
        return len(rows) * torch.cat(moved).detach()

    everything = list(range(20))
    return float((summed(everything) - summed([other for other in everything if other != row])).norm())


@pytest.mark.parametrize("clip", [0.1, 1.0])
def test_record_moves_steps_by_the_norm(make_bank: MakeBank, small: Settings, clip: float) -> None:
    settings = noisy(small, epsilon=math.inf, local_steps=1, clipping_norm=clip, clipped_learning_rate=1.0)

    found = [moved_by(row, make_bank, settings) for row in range(20)]

    assert all(min(clip, 0.5) * (1 - 1e-4) < moved < clip * (1 + 1e-4) for moved in found)


def test_samples_and_noise_follow_from_the_secret_and_not_from_the_seed(make_bank: MakeBank, small: Settings) -> None:
    def weights(key: int, seed: int) -> torch.Tensor:
        model = make_model(0)
        run(model, make_bank(20), noisy(small, sampling_rate=0.5), seed=seed, secret=secret(key))
        return model.linear.weight.detach()

    assert torch.equal(weights(0, seed=1), weights(0, seed=2))
    assert not torch.equal(weights(0, seed=1), weights(1, seed=1))


def test_steps_of_one_round_have_noise_of_their_own(make_bank: MakeBank, small: Settings) -> None:
    settings = noisy(small, local_steps=2, epsilon=0.01, clipped_learning_rate=1e-6)
    model, seen = make_model(0), [make_model(0).linear.weight.detach()]

    def note(*_: int) -> None:
        seen.append(model.linear.weight.detach().clone())

    run(model, make_bank(20), settings, secret=secret(), after_step=note)

    first, second = (after - before for before, after in itertools.pairwise(seen))
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.3


def test_certified_training_needs_a_secret(make_bank: MakeBank, model: Munkey, small: Settings) -> None:
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(ValueError, match="certified training needs secret noise"):
        run(model, make_bank(20), noisy(small))

    assert changed(model, before) == set()


# Looking on.


@pytest.mark.parametrize("last", [2, 6])
def test_training_can_be_stopped_after_any_step(make_bank: MakeBank, model: Munkey, small: Settings, last: int) -> None:
    class StoppedError(Exception): ...

    steps: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        steps.append((done, total))
        if done == last:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(model, make_bank(20), small.replace(local_epochs=2), after_step=note)

    assert steps == [(done, 6) for done in range(1, last + 1)]
