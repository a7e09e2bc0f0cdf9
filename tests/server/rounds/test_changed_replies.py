"""Thousands of replies that are wrong, one in each round: none counts, its site is named, and the round goes on.

The same ones each time; `MUNKEY_MUTATIONS` says how many others are tried.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
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
from tests.solved_nodes import GOOD, MANY, Hospitals
from tests.trained_nodes import Federation, evaluated, trained

pytestmark = pytest.mark.usefixtures("within_a_run")

_FEW = 22
"""Replies of each kind, in a usual run of the tests."""

BAD = {name for name in MANY.values() if name not in GOOD}

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
    """Return what chooses the changes, and how many replies of a kind are changed."""
    asked = os.environ.get("MUNKEY_MUTATIONS", "")
    return random.Random(os.urandom(8).hex() if asked else kind), int(asked or _FEW)


class Played:
    """Rounds that are played again and again; in each, all replies to one message but two are changed.

    A change is called with a source of chance that says the same when a round begins again.
    """

    def __init__(self, folder: Path, kind: str, changes: Iterable[Change], draws: random.Random) -> None:
        self._changes = itertools.cycle(changes)
        self._draws = draws
        self._of_site: dict[str, tuple[Change, float]] = {}
        self.told: dict[str, str] = {}
        self.hospitals = Hospitals(folder, kind, self._change, MANY)
        if kind == ANNOUNCE:
            self.hospitals.rounds.authority = self.hospitals.authority.certificate

    def _change(self, content: RecordDict) -> None:
        site = str(content.config_records[SITE][SITE])
        change, seed = self._of_site.setdefault(site, (next(self._changes), self._draws.random()))
        change(content, random.Random(seed))
        self.told[site] = repr(content)[:1000]

    def run(self) -> dict[str, Any]:
        """Play a round; return what was written down of it."""
        (self.hospitals.folder / EVENTS).write_text("")
        self.hospitals.released.clear()
        self._of_site.clear()
        self.hospitals.rounds.run()
        (event,) = self.hospitals.events()
        return event

    @property
    def sites(self) -> set[str]:
        """Whose sums were solved from."""
        return {each.site for each in self.hospitals.released[-1].contributions}

    def believed(self, sites: Iterable[str]) -> dict[str, str]:
        """Return what those said of some sites that should not have been believed."""
        return {site: self.told.get(site, "") for site in sites if site in BAD}


@pytest.mark.parametrize("kind", [ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE])
def test_round_that_is_solved_counts_no_reply_that_is_wrong(tmp_path: Path, kind: str) -> None:
    draws, count = draws_and_count(kind)
    played = Played(tmp_path / "run", kind, WRONG[kind], draws)
    for _ in range(0, count, len(BAD)):
        event = played.run()

        assert played.believed(BAD - event["failures"].keys()) == {}
        assert set(event["failures"]) == BAD
        assert set(event["evaluation"] if kind == TAKE_RELEASE else played.sites) == set(GOOD)
        assert event["mean"]["test-accuracy"] == 0.5


@pytest.mark.parametrize("kind", ["trained", "evaluated"])
def test_average_counts_no_reply_that_is_wrong(tmp_path: Path, kind: str) -> None:
    draws, count = draws_and_count(kind)
    changes = itertools.cycle(WRONG[kind])
    federation = Federation(tmp_path / "run", lambda _: None, StrategyName.FEDAVG, MANY)
    federation.grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in MANY.items()]
    for _ in range(0, count, len(BAD)):
        (federation.folder / EVENTS).write_text("")
        replies = {site: trained(message, 3.0) for site, message in federation.ask(1).items()}
        answers = {site: evaluated(message, 0.5) for site, message in federation.evaluate(1).items()}
        spoiled = replies if kind == "trained" else answers
        for site in sorted(BAD):
            next(changes)(spoiled[site].content, draws)

        arrays, _ = federation.strategy.aggregate_train(1, replies.values())
        federation.strategy.aggregate_evaluate(1, answers.values())

        assert arrays is not None
        assert {float(number) for array in arrays.values() for number in array.numpy().flat} == {3.0}
        (event,) = federation.events()
        told = event["training" if kind == "trained" else "evaluation"]
        assert {site: repr(spoiled[site].content)[:1000] for site in told if site in BAD} == {}
        assert set(event["failures"]) == BAD


class DamagingGrid:
    """Flower's grid, of which all nodes' replies but two come out of damaged objects."""

    def __init__(self, hospitals: Hospitals, draws: random.Random) -> None:
        self._hospitals = hospitals
        self._draws = draws
        self._sent: dict[str, Message] = {}
        self.grid: Any = create_autospec(Grid, instance=True)
        self.grid.get_node_ids.return_value = list(MANY)
        self.grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in MANY.items()]
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
        good = message.metadata.message_type != self._hospitals.spoiled or MANY[message.metadata.dst_node_id] in GOOD
        return [reply if good else damaged(reply, self._draws)]


@pytest.mark.parametrize("kind", [ANNOUNCE, CONTRIBUTE, TALLY, TAKE_RELEASE])
def test_reply_that_nobody_can_read_is_an_error_of_its_site(tmp_path: Path, kind: str) -> None:
    draws, count = draws_and_count(f"damaged {kind}")
    played = Played(tmp_path / "run", kind, (lambda _, __: None,), draws)
    played.hospitals.rounds.grid = CarefulGrid(DamagingGrid(played.hospitals, draws).grid)
    unreadable = 0
    for _ in range(0, count, len(BAD)):
        # Under masks a wrong number cannot be told from a right one before all are added.
        with suppress(*([FedmunkeyError] if kind in (CONTRIBUTE, TALLY) else [])):
            event = played.run()
            assert set(event["failures"]) <= BAD
            assert set(GOOD) <= played.sites <= set(MANY.values())
            assert set(GOOD) <= set(event["evaluation"])
            assert 0 <= event["mean"]["test-accuracy"] <= 1
            unreadable += len(event["failures"])

    assert unreadable > count / 4


def test_numbers_that_are_no_sums_end_a_run_in_words_or_leave_weights_that_are_numbers(tmp_path: Path) -> None:
    draws, count = draws_and_count("other numbers")
    played = Played(tmp_path / "run", "", (other_numbers,), draws)
    stopped = 0
    for number in range(max(6, count // len(BAD))):
        played.hospitals.spoiled = (CONTRIBUTE, TALLY)[number % 2]
        stopped += 1
        with suppress(FedmunkeyError):
            played.run()
            stopped -= 1
            assert np.isfinite(read_release(played.hospitals.folder / LAST).weights).all(), number

    assert stopped > 1
