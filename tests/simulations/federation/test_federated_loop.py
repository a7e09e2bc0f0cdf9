"""Federated averaging without Flower, and whether it is what Flower's apps do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.serverapp import Grid
from torch import Tensor, nn

from fedmunkey.client.key_store import KeyStore
from fedmunkey.client.learning.exemplar_tokens import own_tokens
from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape
from fedmunkey.common.model.model_choice import initial_model
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.privacy.guarantees import Guarantee
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.app import run_federation
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import EVENTS, LAST
from fedmunkey.simulations.federation.consent import donate
from fedmunkey.simulations.federation.federated_loop import Averaged, Learned, average, average_rounds, learn
from fedmunkey.simulations.federation.hospitals import Encoded, Hospital
from fedmunkey.simulations.federation.measurement import own_mix_accuracy
from fedmunkey.simulations.federation.solved_federation import solve_records


class Number(nn.Module):
    """A model of one weight."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


def adds(amount: float, examples: int, seen: list[float] | None = None) -> Callable[[Number, int], int]:
    """Return local training that adds an amount, times the round's number, to the weight."""

    def train(model: Number, number: int) -> int:
        if seen is not None:
            seen.append(model.value.item())
        with torch.no_grad():
            model.value.add_(amount * number)
        return examples

    return train


@pytest.fixture
def guarantee() -> Guarantee:
    return Guarantee.EMPIRICAL


@pytest.fixture
def settings(settings: Settings, guarantee: Guarantee) -> Settings:
    return settings.replace(guarantee=guarantee.value, random_features=50, delta=1e-3)


@pytest.fixture
def everything(everything: Encoded) -> Encoded:
    """Records of which half are permanent."""
    return replace(everything, records=donate(everything.records, 0.5, seed=0))


@pytest.fixture
def service(tmp_path: Path, settings: Settings) -> Iterator[Settings]:
    """Settings of a federation whose deletion service knows the three hospitals."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in (1, 2, 3):
            ledger.register(f"hospital-{number}")
        with DeletionServer(LedgerService(ledger)) as server:
            yield settings.replace(deletion_service=server.address)


@pytest.fixture
def grid(service: Settings, make_grid: Callable[[Settings, int], Grid]) -> Grid:
    return make_grid(service, 3)


def largest_difference(left: Mapping[str, Tensor], right: Mapping[str, Tensor], shape: ModelShape) -> float:
    """Compare two models' weights, but for the biases on the keys of attention.

    These change no output, so their gradient is rounding, which Adam makes large.
    """
    assert left.keys() == right.keys()
    free = {name: shape.width if name.endswith("key_value.bias") else 0 for name in left}
    differences = [(left[name] - right[name]).abs().flatten()[free[name] :] for name in left]
    return float(torch.cat(differences).max())


def same(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(torch.equal(weight, other[name]) for name, weight in left.state_dict().items())


def rounds(settings: Settings) -> list[dict[str, Any]]:
    lines = (Path(settings.output_dir) / EVENTS).read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "round"]


@pytest.mark.parametrize(("sites", "rounds", "expected"), [([adds(1, 10), adds(100, 0)], 1, 1), ([adds(1, 7)], 3, 6)])
def test_site_without_examples_does_not_count_and_one_alone_trains_as_without_a_federation(
    sites: list[Callable[[Number, int], int]], rounds: int, expected: float
) -> None:
    model = average_rounds(Number(0.0).train(), sites, rounds)

    assert model.value.item() == pytest.approx(expected)
    assert not model.training


def test_average_counts_each_model_with_its_examples() -> None:
    sent = [{"a": torch.tensor(values), "b": torch.ones(())} for values in ([0.0, 4.0], [8.0, 0.0])]

    averaged = average(sent, [3, 1])

    assert averaged["a"].tolist() == [2, 3]
    assert averaged["b"] == 1
    assert sent[0]["a"].tolist() == [0, 4]


def test_average_is_weighted_by_examples_and_each_round_starts_from_the_last() -> None:
    seen: list[float] = []
    told: list[Averaged[Number]] = []
    models: list[float] = []

    def note(averaged: Averaged[Number]) -> None:
        told.append(averaged)
        models.append(averaged.model.value.item())

    model = average_rounds(Number(10.0), [adds(1, 30, seen), adds(5, 10, seen)], 2, after_round=note)

    # Round 1 adds (30 * 1 + 10 * 5) / 40 = 2, round 2 twice that.
    assert seen == [10, 10, 12, 12]
    assert models == pytest.approx([12, 16])
    assert model.value.item() == pytest.approx(16)
    # What was told of a round stays as it was in later ones.
    assert [(one.number, one.before["value"].item(), *one.examples) for one in told] == [
        (1, 10, 30, 10),
        (2, 12, 30, 10),
    ]
    assert [[weights["value"].item() for weights in one.sent] for one in told] == [[11, 15], [14, 22]]


@pytest.mark.parametrize("guarantee", [Guarantee.CERTIFIED, Guarantee.EMPIRICAL])
def test_after_each_round_every_token_goes_with_the_weights_of_that_round(
    hospitals: list[Hospital], settings: Settings, shape: ModelShape
) -> None:
    sites = {h.name: h.given.split(Split.TRAIN) for h in hospitals}
    joint = Recipe.of(settings).route.joint_tokens
    numbers: list[int] = []
    offsets: list[Tensor] = []
    weights: list[Tensor] = []

    def note(number: int, learned: Learned) -> None:
        numbers.append(number)
        for name, bank in learned.banks.items():
            assert len(bank) == len(sites[name].records)
            assert joint or torch.equal(bank.tokens.offsets, own_tokens(learned.model, bank.inputs).offsets)
        offsets.append(torch.cat([bank.tokens.offsets.clone() for bank in learned.banks.values()]))
        weights.append(torch.cat([weight.flatten() for weight in learned.model.state_dict().values()]))
        assert not learned.model.training

    watched = learn(sites, settings, shape, after_round=note)

    assert numbers == [1, 2, 3]
    assert len({one.numpy().tobytes() for one in offsets}) == len({one.numpy().tobytes() for one in weights}) == 3
    assert torch.equal(offsets[-1], torch.cat([bank.tokens.offsets for bank in watched.banks.values()]))
    # Looking changes nothing.
    alone = learn(sites, settings, shape)
    assert same(watched.model, alone.model)
    for name, bank in watched.banks.items():
        assert torch.equal(bank.tokens.offsets, alone.banks[name].tokens.offsets)


@pytest.mark.parametrize("guarantee", [Guarantee.CERTIFIED, Guarantee.EMPIRICAL])
def test_loop_gives_the_weights_that_flowers_apps_give(
    open_hospitals: list[Hospital], service: Settings, shape: ModelShape, grid: Grid, guarantee: Guarantee
) -> None:
    run_federation(grid, service)
    learned = learn({h.name: h.given.split(Split.TRAIN) for h in open_hospitals}, service, shape)

    real = read_checkpoint(Path(service.output_dir) / LAST).weights
    assert largest_difference(learned.model.state_dict(), real, shape) < 1e-4
    assert largest_difference(initial_model(shape, service.seed).state_dict(), real, shape) > 2e-3
    if guarantee is Guarantee.EMPIRICAL:
        return
    for hospital in open_hospitals:
        with hospital.folder.open() as store:
            entries, _ = store.records.read_entries(Split.TRAIN)
            offsets = store.records.read_tokens(entries).offsets
        assert torch.allclose(offsets, learned.banks[hospital.name].tokens.offsets, atol=1e-4)
        assert offsets.any()


@pytest.mark.parametrize("guarantee", [Guarantee.EXACT])
def test_solved_federation_has_the_bytes_that_flowers_apps_give(
    open_hospitals: list[Hospital], service: Settings, shape: ModelShape, grid: Grid
) -> None:
    run_federation(grid, service.replace(num_rounds=1))
    solved = solve_records({h.name: h.given.split(Split.TRAIN) for h in open_hospitals}, service, shape)

    real = read_release(Path(service.output_dir) / LAST)
    assert real.digest() == solved.release.digest()
    assert real.weights.any()
    (event,) = rounds(service)
    for hospital in open_hospitals:
        found = event["evaluation"][hospital.name]
        test = hospital.given.split(Split.TEST)
        own = own_mix_accuracy(solved.answer(hospital.name, test), test, hospital.given.split(Split.TRAIN))
        assert found["test-own-accuracy"] == pytest.approx(own)


def test_loop_starts_from_the_weights_that_flowers_apps_start_from(
    open_hospitals: list[Hospital], service: Settings, shape: ModelShape, grid: Grid, tmp_path: Path
) -> None:
    path = tmp_path / "start.safetensors"
    write_checkpoint(path, Checkpoint(initial_model(shape, 5).state_dict(), shape, service.encoder, {}))
    settings = service.replace(initial_weights=str(path))

    run_federation(grid, settings)
    learned = learn({h.name: h.given.split(Split.TRAIN) for h in open_hospitals}, settings, shape)

    real = read_checkpoint(Path(service.output_dir) / LAST).weights
    assert largest_difference(learned.model.state_dict(), real, shape) < 1e-4


def test_federation_goes_on_without_a_site_that_has_no_key_store(
    open_hospitals: list[Hospital], service: Settings, grid: Grid
) -> None:
    open_hospitals[1].folder.key_store.unlink()

    run_federation(grid, service)

    events = rounds(service)
    assert len(events) == service.num_rounds
    for event in events:
        assert sorted(event["training"]) == sorted(event["evaluation"]) == ["hospital-1", "hospital-3"]
        ((name, reason),) = event["failures"].items()
        assert name == "node 101"
        lacking = f"there is no key store {open_hospitals[1].folder.key_store}; "
        assert reason == f"{lacking}enrol the site's records first (munkey-client enrol, or import)"


def test_site_that_breaks_down_later_is_named(
    open_hospitals: list[Hospital], service: Settings, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = KeyStore.open

    def lose_one(path: Path) -> KeyStore:
        if path == open_hospitals[2].folder.key_store and rounds(service):
            path.unlink(missing_ok=True)
        return opened(path)

    monkeypatch.setattr(KeyStore, "open", lose_one)

    run_federation(grid, service)

    failures = [event["failures"] for event in rounds(service)]
    assert [list(found) for found in failures] == [[], ["hospital-3"], ["hospital-3"]]
    assert "there is no key store" in failures[1]["hospital-3"]


def test_federation_stops_with_the_reasons_if_no_site_can_train(
    hospitals: list[Hospital], service: Settings, grid: Grid
) -> None:
    assert not hospitals[0].folder.key_store.exists()

    with pytest.raises(FederationStopped, match="round 1: no site could train: there is no key store"):
        run_federation(grid, service)
