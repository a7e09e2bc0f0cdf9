"""Thousands of replies that are wrong, one in each round: none counts, its site is named, and the round goes on.

The same ones each time; `MUNKEY_MUTATIONS` says how many others are tried.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.programs.round_messages import (
    ANNOUNCE,
    ARRAYS,
    CONFIG,
    CONTRIBUTE,
    GENERATION,
    LAST_ENTRY,
    LAST_ORDER,
    METRICS,
    SITE,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.settings.settings import StrategyName
from fedmunkey.server.rounds.careful_grid import CarefulGrid
from fedmunkey.server.rounds.run_record import EVENTS, LAST
from tests.server.rounds.changed_replies import (
    Change,
    another_kind,
    damaged,
    no_array,
    no_certificate,
    no_count,
    no_metric,
    no_name,
    no_share,
    no_statement,
    no_whole_number,
    not_finite,
    nothing,
    other_numbers,
)
from tests.solved_nodes import BAD, Hospitals
from tests.trained_nodes import NODES, Federation, evaluated, trained

pytestmark = pytest.mark.usefixtures("within_a_run")

_FEW = 12
"""Of each kind, in a usual run of the tests."""

ALWAYS: tuple[Change, ...] = (nothing, no_name, no_metric, no_count("num-examples"), no_share("test-accuracy"))
WRONG: dict[str, tuple[Change, ...]] = {
    "trained": (*ALWAYS, another_kind(SITE, METRICS, ARRAYS), no_array, no_array, not_finite),
    "evaluated": (*ALWAYS, another_kind(SITE, METRICS)),
    ANNOUNCE: (*ALWAYS, another_kind(SITE, METRICS, CONFIG), no_certificate, no_certificate),
    CONTRIBUTE: (
        *(*ALWAYS, another_kind(SITE, METRICS, ARRAYS, CONFIG), no_array, no_array),
        *(no_whole_number(GENERATION, LAST_ENTRY, LAST_ORDER), no_statement, no_statement),
    ),
    TALLY: (*ALWAYS, another_kind(SITE, METRICS, ARRAYS), no_array, no_array),
    TAKE_RELEASE: (*ALWAYS, another_kind(SITE, METRICS)),
}


def draws_and_count(kind: str) -> tuple[random.Random, int]:
    """Return what chooses the changes, and how many rounds are played of a kind."""
    asked = os.environ.get("MUNKEY_MUTATIONS", "")
    return random.Random(os.urandom(8).hex() if asked else kind), int(asked or _FEW)


class Played:
    """Rounds that are played again and again; in each, the second hospital's reply to one message is changed."""

    def __init__(self, folder: Path, kind: str, spoil: Callable[[RecordDict], object]) -> None:
        def told(content: RecordDict) -> None:
            spoil(content)
            self.told = repr(content)[:2000]

        self.told = ""
        self.hospitals = Hospitals(folder, kind, told)
        if kind == ANNOUNCE:
            self.hospitals.rounds.authority = self.hospitals.authority.certificate

    def run(self) -> dict[str, Any]:
        """Play a round; return what was written down of it."""
        (self.hospitals.folder / EVENTS).write_text("")
        self.hospitals.released.clear()
        self.hospitals.rounds.run()
        (event,) = self.hospitals.events()
        return event

    @property
    def sites(self) -> list[str]:
        """Whose sums were solved from."""
        return [each.site for each in self.hospitals.released[-1].contributions]


@pytest.mark.parametrize("kind", [ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE])
def test_round_that_is_solved_counts_no_reply_that_is_wrong(tmp_path: Path, kind: str) -> None:
    draws, count = draws_and_count(kind)
    changes = WRONG[kind]
    number = 0
    played = Played(tmp_path / "run", kind, lambda content: changes[number % len(changes)](content, draws))
    for number in range(count):
        event = played.run()

        assert list(event["failures"]) == ["hospital-2"], number
        others = ["hospital-1", "hospital-3"]
        assert played.sites == (sorted(NODES.values()) if kind == TAKE_RELEASE else others), number
        assert sorted(event["evaluation"]) == (others if kind == TAKE_RELEASE else sorted(NODES.values())), number
        assert event["mean"]["test-accuracy"] == 0.5


def test_average_counts_no_reply_that_is_wrong(tmp_path: Path) -> None:
    draws, count = draws_and_count("trained")
    federation = Federation(tmp_path / "run", lambda _: None, StrategyName.FEDAVG)
    federation.grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in NODES.items()]
    for number in range(count):
        (federation.folder / EVENTS).write_text("")
        messages = federation.ask(1)
        replies = {site: trained(message, 3.0) for site, message in messages.items()}
        questions = federation.evaluate(1)
        answers = {site: evaluated(message, 0.5) for site, message in questions.items()}
        kind, spoiled = draws.choice((("trained", replies), ("evaluated", answers)))
        changes = WRONG[kind]
        changes[number % len(changes)](spoiled["hospital-2"].content, draws)

        arrays, _ = federation.strategy.aggregate_train(1, replies.values())
        federation.strategy.aggregate_evaluate(1, answers.values())

        assert arrays is not None
        assert {float(array.numpy().max(initial=3.0)) for array in arrays.values()} == {3.0}, number
        (event,) = federation.events()
        assert list(event["failures"]) == ["hospital-2"], (number, kind)
        assert sorted(event["training" if kind == "trained" else "evaluation"]) == ["hospital-1", "hospital-3"], number


class DamagingGrid:
    """Flower's grid, of which one node's replies come out of damaged objects."""

    def __init__(self, hospitals: Hospitals, damage: Callable[[Message], Message]) -> None:
        self._hospitals = hospitals
        self._damage = damage
        self._sent: dict[str, Message] = {}
        self.grid: Any = create_autospec(Grid, instance=True)
        self.grid.get_node_ids.return_value = list(NODES)
        self.grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in NODES.items()]
        self.grid.push_messages.side_effect = self._push
        self.grid.pull_messages.side_effect = self._pull

    def _push(self, messages: Iterable[Message]) -> list[str]:
        names = []
        for message in messages:
            # As Flower's own grid does.
            name = message.metadata.__dict__["_message_id"] = message.object_id
            self._sent[name] = message
            names.append(name)
        return names

    def _pull(self, names: Iterable[str]) -> list[Message]:
        (name,) = names
        message = self._sent.pop(name)
        (reply,) = self._hospitals.answer([message], timeout=0.0)
        of_kind = message.metadata.message_type == self._hospitals.spoiled
        return [self._damage(reply) if message.metadata.dst_node_id == BAD and of_kind else reply]


@pytest.mark.parametrize("kind", [ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE])
def test_reply_that_nobody_can_read_is_an_error_of_its_site(tmp_path: Path, kind: str) -> None:
    draws, count = draws_and_count(f"damaged {kind}")
    played = Played(tmp_path / "run", kind, lambda _: None)
    grid = DamagingGrid(played.hospitals, lambda reply: damaged(reply, draws))
    played.hospitals.rounds.grid = CarefulGrid(grid.grid)
    unreadable = 0
    for number in range(count):
        # Under masks a wrong number cannot be told from a right one before all are added.
        with suppress(*([FedmunkeyError] if kind in (CONTRIBUTE, TALLY) else [])):
            event = played.run()
            assert set(event["failures"]) <= {"hospital-2"}, number
            assert {"hospital-1", "hospital-3"} <= set(played.sites) <= set(NODES.values()), number
            assert 0 <= event["mean"]["test-accuracy"] <= 1
            unreadable += bool(event["failures"])

    assert unreadable > count / 4


def test_numbers_that_are_no_sums_end_a_run_in_words_or_leave_weights_that_are_numbers(tmp_path: Path) -> None:
    draws, count = draws_and_count("other numbers")
    played = Played(tmp_path / "run", "", lambda content: other_numbers(content, draws))
    stopped = 0
    for number in range(count):
        played.hospitals.spoiled = (CONTRIBUTE, TALLY)[number % 2]
        stopped += 1
        with suppress(FedmunkeyError):
            played.run()
            stopped -= 1
            assert np.isfinite(read_release(played.hospitals.folder / LAST).weights).all(), number

    assert stopped > count / 4
