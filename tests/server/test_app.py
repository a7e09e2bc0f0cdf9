"""The coordinator's Flower app, from its settings to what it leaves behind."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.errors import (
    FederationStopped,
    InvalidDeletion,
    InvalidIdentity,
    InvalidSetting,
    InvalidWeights,
    ServiceUnavailable,
)
from fedmunkey.common.model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.model.model_choice import choose_shape, initial_model
from fedmunkey.common.programs.round_messages import (
    ARRAYS,
    CONFIG,
    CONTRIBUTE,
    METRICS,
    ROUND,
    SITE,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.app import app, run_federation
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import ABOUT, BEST, EVENTS, LAST
from tests.closed_port import closed_port
from tests.coordinator import running_coordinator
from tests.solved_sites import SitesGrid, digits, make_hospital, solved_settings, unchanged

pytestmark = pytest.mark.usefixtures("within_a_run")

Weights = dict[str, torch.Tensor]


class SitesInProcess:
    """Two sites with some examples each that answer at once; training adds one to every weight."""

    def __init__(self, examples: int = 10) -> None:
        self.examples = examples
        self.received: list[tuple[str, int, Weights]] = []
        grid = create_autospec(Grid, instance=True)
        grid.get_node_ids.return_value = [1, 2]
        grid.send_and_receive.side_effect = lambda messages, **_: [self._answer(message) for message in messages]
        grid.push_messages.side_effect = self._push
        grid.pull_messages.side_effect = lambda names: [self._answer(self._sent.pop(name)) for name in names]
        self.grid = cast(Grid, grid)
        self._sent: dict[str, Message] = {}

    def _push(self, messages: Iterable[Message]) -> list[str]:
        """Take messages as Flower's engine does, which gives each an id."""
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message-{number}"
            self._sent[message.metadata.message_id] = message
        return list(self._sent)

    def _answer(self, message: Message) -> Message:
        kind = message.metadata.message_type
        weights = message.content.array_records[ARRAYS].to_torch_state_dict()
        number = message.content.config_records[CONFIG][ROUND]
        assert isinstance(number, int)
        self.received.append((kind, number, weights))
        metrics: dict[str, int | float] = {"num-examples": self.examples, "train-loss": 0.5}
        if kind == "evaluate":
            metrics = {"num-examples": 10, "selection-accuracy": 1 / number, "test-accuracy": 0.5}
        content = RecordDict({METRICS: MetricRecord(dict(metrics))})
        content[SITE] = ConfigRecord({SITE: f"hospital-{message.metadata.dst_node_id}"})
        if kind == "train":
            content[ARRAYS] = ArrayRecord({name: weight + 1 for name, weight in weights.items()})
        return Message(content=content, reply_to=message)


@pytest.fixture
def settings(tmp_path: Path, ledger: Ledger) -> Iterator[Settings]:
    """Settings of a small federation with a deletion service that answers."""
    with DeletionServer(LedgerService(ledger)) as server:
        yield small(tmp_path, deletion_service=server.address)


def small(folder: Path, **changes: Any) -> Settings:
    sizes = {"guarantee": "empirical", "width": 8, "depth": 1, "heads": 1, "exemplar_size": 4}
    return Settings().replace(num_rounds=2, output_dir=str(folder / "output"), **{**sizes, **changes})


def events(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(settings.output_dir) / EVENTS).read_text().splitlines()]


def first_weights(settings: Settings) -> Weights:
    return initial_model(choose_shape(settings), settings.seed).state_dict()


def plus(weights: Weights, more: float) -> Weights:
    return {name: weight + more for name, weight in weights.items()}


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.allclose(left[name], right[name], atol=1e-5) for name in left)


def run_main(grid: Grid, settings: Settings) -> None:
    """Run the app as Flower does, from a flat configuration."""
    app(grid, Context(1, 1, {}, RecordDict(), settings.to_config()))


@pytest.mark.parametrize("run", [run_federation, run_main])
def test_federation_trains_for_all_rounds_and_leaves_weights_and_events(
    settings: Settings, ledger: Ledger, run: Callable[[Grid, Settings], None]
) -> None:
    sites = SitesInProcess()

    run(sites.grid, settings)

    first = first_weights(settings)
    assert [(kind, number) for kind, number, _ in sites.received] == [
        (kind, number) for number in (1, 2) for kind in ("train", "train", "evaluate", "evaluate")
    ]
    assert same(sites.received[0][2], first)
    assert same(sites.received[-1][2], plus(first, 2))
    kept = {
        name: read_checkpoint(Path(settings.output_dir) / name, expected=choose_shape(settings), encoder="descriptor")
        for name in (LAST, BEST)
    }
    assert same(dict(kept[LAST].weights), plus(first, 2))
    assert same(dict(kept[BEST].weights), plus(first, 1))
    assert kept[LAST].about["guarantee"] == "empirical"
    assert Settings.parse(kept[LAST].about["settings"]) == settings
    assert [(event["event"], event.get("number")) for event in events(settings)] == [
        ("round", 1),
        ("round", 2),
        ("finished", None),
    ]
    assert [number for number, _ in ledger.rounds()] == [1, 2]


def test_exact_run_solves_leaves_a_release_and_trains_nobody(tmp_path: Path, ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.register(f"hospital-{number}")
    with DeletionServer(LedgerService(ledger)) as server:
        settings = solved_settings(tmp_path, server.address)
        hospitals = [
            make_hospital(tmp_path, number, settings, [digits(range(20 * number, 20 * number + 20))])
            for number in (1, 2)
        ]
        sites = SitesGrid(hospitals, unchanged)

        run_federation(sites.grid, settings)

    assert [kind for kind, node in sites.asked if node == 1] == [CONTRIBUTE, TALLY, TAKE_RELEASE]
    last, best = (read_release(Path(settings.output_dir) / name) for name in (LAST, BEST))
    assert last.digest() == best.digest()
    assert (last.about["guarantee"], last.about["round"], last.about["records"]) == ("exact", 1, 40)
    assert Settings.parse(last.about["settings"]) == settings
    assert [event["event"] for event in events(settings)] == ["round", "finished"]
    assert [number for number, _ in ledger.rounds()] == [1]


def test_exact_run_that_cannot_go_on_says_why(tmp_path: Path, ledger: Ledger) -> None:
    ledger.register("hospital-1")
    with DeletionServer(LedgerService(ledger)) as server:
        settings = solved_settings(tmp_path, server.address, min_sites=1)
        sites = SitesGrid([make_hospital(tmp_path, 1, settings)], unchanged)

        with pytest.raises(FederationStopped, match="round 1: no site has a record left to solve from"):
            run_federation(sites.grid, settings)

    assert events(settings) == [{"event": "stopped", "reason": "round 1: no site has a record left to solve from"}]


def test_training_goes_on_from_the_weights_that_are_named(settings: Settings, tmp_path: Path) -> None:
    shape = choose_shape(settings)
    start = tmp_path / "start.safetensors"
    write_checkpoint(start, Checkpoint(Munkey(shape).state_dict(), shape, settings.encoder, {}))
    sites = SitesInProcess()

    run_federation(sites.grid, settings.replace(initial_weights=str(start)))

    assert same(sites.received[0][2], dict(read_checkpoint(start).weights))


@pytest.mark.parametrize(("change", "fault"), [({"width": 16}, "width is 8"), ({"encoder": "resnet18"}, "resnet18")])
def test_weights_of_another_model_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    settings = small(tmp_path, image_path="patches")
    shape = choose_shape(settings)
    start = tmp_path / "start.safetensors"
    write_checkpoint(start, Checkpoint(Munkey(shape).state_dict(), shape, settings.encoder, {}))

    with pytest.raises(InvalidWeights, match=fault):
        run_federation(SitesInProcess().grid, settings.replace(initial_weights=str(start), **change))

    assert not Path(settings.output_dir).exists()


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"num-round": 3}, InvalidSetting, r"unknown setting num-round: did you mean num-rounds\?"),
        ({"deletion-identity": "missing"}, InvalidIdentity, "holds no identity"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    context = Context(1, 1, {}, RecordDict(), {**small(tmp_path).to_config(), **change})

    with pytest.raises(error, match=reason):
        app(SitesInProcess().grid, context)

    assert not (tmp_path / "output").exists()


def test_without_a_deletion_service_nobody_trains_and_the_federation_stops_with_the_way_out(tmp_path: Path) -> None:
    with closed_port() as port:
        address = f"127.0.0.1:{port}"
        settings = small(tmp_path, deletion_service=address, deletion_patience=0.3)
        sites, start = SitesInProcess(), time.monotonic()

        with pytest.raises(ServiceUnavailable) as stopped:
            run_federation(sites.grid, settings)

    assert time.monotonic() - start >= 0.3
    assert sites.received == []
    reason = str(stopped.value)
    assert reason == (
        f"the deletion service at {address} cannot be reached: "
        "start it with munkey-server serve, or name another with --service (deletion-service in a file of settings)"
    )
    *waiting, last = events(settings)
    assert last == {"event": "stopped", "reason": reason}
    assert {event["event"] for event in waiting} == {"waiting"}
    assert waiting[0]["reason"].startswith(f"{reason}; no training until it answers (waited 0 of ")


def test_training_goes_on_once_the_deletion_service_answers(tmp_path: Path, ledger: Ledger) -> None:
    with DeletionServer(LedgerService(ledger)) as server:
        address = server.address
    settings = small(tmp_path, deletion_service=address, deletion_patience=60)
    late = DeletionServer(LedgerService(ledger), address)
    start = threading.Timer(0.3, late.start)
    start.start()
    try:
        run_federation(SitesInProcess().grid, settings)
    finally:
        start.join()
        late.stop()

    found = [event["event"] for event in events(settings)]
    assert found[0] == "waiting"
    assert found[-3:] == ["round", "round", "finished"]


def test_rounds_are_opened_with_the_coordinators_identity(tmp_path: Path) -> None:
    with running_coordinator(tmp_path) as coordinator:
        shown = {"deletion_service": coordinator.address, "deletion_identity": str(coordinator.folder.identity)}
        run_federation(SitesInProcess().grid, small(tmp_path, **shown))
        as_site = {**shown, "deletion_identity": str(coordinator.member("hospital-1").folder)}
        with pytest.raises(InvalidDeletion, match="sites may not call OpenRound"):
            run_federation(SitesInProcess().grid, small(tmp_path / "as-site", **as_site))

    assert events(small(tmp_path))[-1]["event"] == "finished"


# Runs that are kept.


def test_run_that_was_cut_off_goes_on_after_its_last_round_to_the_same_weights(settings: Settings) -> None:
    whole, cut = SitesInProcess(), SitesInProcess()
    run_federation(whole.grid, settings.replace(num_rounds=3, output_dir=f"{settings.output_dir}-whole"))
    answer = cast(Any, cut.grid).send_and_receive.side_effect

    def stop_in_the_second_round(messages: list[Message], **given: Any) -> list[Message]:
        asked = list(messages)
        if cut.received and asked[0].content.config_records[CONFIG][ROUND] == 2:
            raise KeyboardInterrupt
        found: list[Message] = answer(asked, **given)
        return found

    cast(Any, cut.grid).send_and_receive.side_effect = stop_in_the_second_round
    with pytest.raises(KeyboardInterrupt):
        run_federation(cut.grid, settings.replace(num_rounds=3))
    with pytest.raises(InvalidSetting, match="holds a run already, which is never overwritten"):
        run_federation(SitesInProcess().grid, settings.replace(num_rounds=3))
    again = SitesInProcess()

    run_federation(again.grid, settings.replace(num_rounds=3, resume_run=True))

    assert [number for kind, number, _ in again.received if kind == "train"] == [2, 2, 3, 3]
    last = read_checkpoint(Path(settings.output_dir) / LAST)
    expected = read_checkpoint(Path(f"{settings.output_dir}-whole") / LAST)
    assert same(dict(last.weights), dict(expected.weights))
    assert [event["event"] for event in events(settings)] == ["round", "resumed", "round", "round", "finished"]


def test_weights_of_an_earlier_run_are_given_out_and_nobody_trains(settings: Settings) -> None:
    run_federation(SitesInProcess().grid, settings)
    path, output = Path(settings.output_dir) / LAST, f"{settings.output_dir}-again"
    sites = SitesInProcess()

    run_federation(sites.grid, settings.replace(give_out=str(path), output_dir=output))

    assert [(kind, number) for kind, number, _ in sites.received] == [("evaluate", 1)] * 2
    assert all(same(weights, dict(read_checkpoint(path).weights)) for _, _, weights in sites.received)
    about = json.loads((Path(output) / ABOUT).read_text())
    assert about["gives-out"] == path.parent.name
    assert not (Path(output) / LAST).exists()


def test_release_of_an_earlier_run_is_given_out_and_nothing_is_solved(tmp_path: Path, ledger: Ledger) -> None:
    for number in (1, 2):
        ledger.register(f"hospital-{number}")
    with DeletionServer(LedgerService(ledger)) as server:
        settings = solved_settings(tmp_path, server.address)
        hospitals = [
            make_hospital(tmp_path, number, settings, [digits(range(20 * number, 20 * number + 20))])
            for number in (1, 2)
        ]
        run_federation(SitesGrid(hospitals, unchanged).grid, settings)
        path, sites = Path(settings.output_dir) / LAST, SitesGrid(hospitals, unchanged)

        run_federation(sites.grid, settings.replace(give_out=str(path), output_dir=str(tmp_path / "again")))

    assert sites.asked == [(TAKE_RELEASE, 1), (TAKE_RELEASE, 2)]
    kept = [read_release(hospital.folder.shared_weights).digest() for hospital in hospitals]
    assert kept == [read_release(path).digest()] * 2
