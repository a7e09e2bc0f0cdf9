"""Federated averaging without Flower, and whether it is what Flower's apps do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from client.app import app as client_app
from client.dataset import Split
from client.key_store import KeyStore
from common.checkpoints import read_checkpoint
from common.errors import FederationStopped
from common.model import ModelShape
from common.model_choice import initial_model
from common.settings import Settings
from server.app import run_federation
from server.deletion_server import DeletionServer
from server.deletion_service import LedgerService
from server.ledger import Ledger
from server.run_record import EVENTS, LAST
from simulations.federated_loop import average_rounds, munkey_site
from simulations.hospitals import Hospital, bank_of


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
def service(tmp_path: Path, settings: Settings) -> Iterator[Settings]:
    """Settings of a federation whose deletion service knows the three hospitals."""
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in (1, 2, 3):
            ledger.register(f"hospital-{number}")
        with DeletionServer(LedgerService(ledger)) as server:
            yield settings.replace(deletion_service=server.address)


@pytest.fixture
def grid(service: Settings, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """Three nodes in this process that run the sites' Flower app; the last one answers first."""
    # Flower makes messages only within a run.
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    contexts = {
        100 + place: Context(1, 100 + place, {"partition-id": place}, RecordDict(), service.to_config())
        for place in range(3)
    }

    def answer(messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        del timeout
        asked = sorted(messages, key=lambda message: -message.metadata.dst_node_id)
        return [client_app(message, contexts[message.metadata.dst_node_id]) for message in asked]

    grid = create_autospec(Grid, instance=True)
    grid.get_node_ids.return_value = list(contexts)
    grid.send_and_receive.side_effect = answer
    return cast(Grid, grid)


def rounds(settings: Settings) -> list[dict[str, Any]]:
    lines = (Path(settings.output_dir) / EVENTS).read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "round"]


def test_average_is_weighted_by_examples_and_each_round_starts_from_the_last() -> None:
    seen: list[float] = []

    model = average_rounds(Number(10.0), [adds(1, 30, seen), adds(5, 10, seen)], 2)

    # Round 1 adds (30 * 1 + 10 * 5) / 40 = 2, round 2 twice that.
    assert seen == [10, 10, 12, 12]
    assert model.value.item() == pytest.approx(16)


def test_site_without_examples_does_not_count() -> None:
    assert average_rounds(Number(0.0), [adds(1, 10), adds(100, 0)], 1).value.item() == 1


def test_one_site_alone_trains_as_without_a_federation() -> None:
    assert average_rounds(Number(0.0), [adds(1, 7)], 3).value.item() == pytest.approx(6)


def test_model_is_ready_to_be_evaluated() -> None:
    assert not average_rounds(Number(0.0).train(), [adds(1, 1)], 1).training


def test_loop_gives_the_weights_that_flowers_apps_give(
    open_hospitals: list[Hospital], service: Settings, shape: ModelShape, grid: Grid
) -> None:
    sites = [
        munkey_site(hospital.name, bank_of(hospital.given.split(Split.TRAIN), service, shape), service)
        for hospital in open_hospitals
    ]

    run_federation(grid, service)
    model = average_rounds(initial_model(shape, service.seed), sites, service.num_rounds)

    real, start = read_checkpoint(Path(service.output_dir) / LAST).weights, initial_model(shape, service.seed)
    for name, weight in model.state_dict().items():
        # A bias on the keys of attention changes no output, so its gradient is rounding, which Adam makes large.
        free = shape.width if name.endswith("key_value.bias") else 0
        assert torch.allclose(weight[free:], real[name][free:], atol=1e-4), name
    assert (start.head.weight - real["head.weight"]).abs().max() > 2e-3


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
        assert reason == (
            f"there is no key store {open_hospitals[1].folder.key_store}; "
            "enrol the site's records first (munkey-client enrol)"
        )


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
