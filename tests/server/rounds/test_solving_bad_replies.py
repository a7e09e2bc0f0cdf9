"""Rounds in which weights are solved for go on without a site that does not answer as it should, and name it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmunkey.common.clock import utc_now
from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.solving import tally
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.identities import MemberRole
from fedmunkey.common.identities.identity import certificate_pem
from fedmunkey.common.programs.round_messages import (
    ANNOUNCE,
    ARRAYS,
    CERTIFICATE,
    CONFIG,
    CONTRIBUTE,
    GENERATION,
    LAST_ENTRY,
    LAST_ORDER,
    METRICS,
    NUMBERS,
    SITE,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.settings.settings import AbsentSites, Settings
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.rounds.run_record import EVENTS, RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from tests.coordinator import fresh_key

pytestmark = pytest.mark.usefixtures("within_a_run")

READ = FeatureMap((1, 4), 0)
CLASSES, RECORDS = 2, 40
NODES = {11: "hospital-1", 12: "hospital-2", 13: "hospital-3"}
BAD = 12

Spoil = Callable[[RecordDict], object]


class Hospitals:
    """Three sites that answer a coordinator without masks, one of them as a test has it."""

    def __init__(self, folder: Path, spoiled: str = "", spoil: Spoil = lambda _: None, **settings: Any) -> None:
        self.folder = folder
        self.spoiled, self.spoil = spoiled, spoil
        self.released: list[ReleasedWeights] = []
        self.authority = CertificateAuthority.make("test", utc_now())
        self.certificates = {name: self.certify(name) for name in NODES.values()}
        grid = create_autospec(Grid, instance=True)
        grid.get_node_ids.return_value = list(NODES)
        grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in NODES.items()]
        grid.send_and_receive.side_effect = self.answer
        chosen = Settings(num_rounds=1, min_sites=2, num_classes=CLASSES, **settings)
        self.rounds = SolvingRounds(
            *(grid, chosen, READ, RunRecord(folder, {}), lambda _: None), released=self.released.append
        )

    def certify(self, name: str, role: MemberRole = MemberRole.SITE) -> str:
        return certificate_pem(self.authority.issue(fresh_key(), role, name, utc_now())).decode()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]

    def answer(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        del timeout
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        content = RecordDict({SITE: ConfigRecord({SITE: NODES[node]}), METRICS: MetricRecord()})
        numbers, labels, folds = _records(node)
        if kind == CONTRIBUTE:
            sums = Sums.zeros(SumsShape(FOLDS, READ.size, CLASSES))
            sums.add(numbers, labels, folds)
            content[ARRAYS] = ArrayRecord({NUMBERS: Array(sums.to_numbers())})
            content[CONFIG] = ConfigRecord({GENERATION: 1, LAST_ENTRY: RECORDS, LAST_ORDER: 0})
        elif kind == ANNOUNCE:
            content[CONFIG] = ConfigRecord({CERTIFICATE: self.certificates[NODES[node]]})
        elif kind == TALLY:
            weights = message.content.array_records[ARRAYS][NUMBERS].numpy()
            found = tally(weights, numbers, labels, folds)
            content[ARRAYS] = ArrayRecord({NUMBERS: Array(found.reshape(-1).view(np.uint64))})
        elif kind == TAKE_RELEASE:
            content[METRICS] = MetricRecord({"entries": RECORDS, "num-examples": 5, "test-accuracy": 0.5})
        if node == BAD and kind == self.spoiled:
            self.spoil(content)
        return Message(content=content, reply_to=message)


def _records(node: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    drawn = np.random.default_rng(node)
    labels = np.arange(RECORDS, dtype=np.int64) % CLASSES
    features = drawn.normal(size=(RECORDS, 1, 4)).astype(np.float32)
    features[:, 0, 0] += 3 * labels
    return READ.read(np.empty((RECORDS, 0), np.float32), features), labels, np.arange(RECORDS, dtype=np.int64) % FOLDS


def without(record: Any, name: str) -> None:
    del record[name]


def numbers_of(change: Callable[[NDArray[np.uint64]], NDArray[Any]]) -> Spoil:
    def spoil(content: RecordDict) -> None:
        arrays = content.array_records[ARRAYS]
        arrays[NUMBERS] = Array(change(arrays[NUMBERS].numpy()))

    return spoil


CASES: dict[str, tuple[str, Spoil]] = {
    "sums of another length": (CONTRIBUTE, numbers_of(lambda numbers: numbers[:-1])),
    "sums of another kind": (CONTRIBUTE, numbers_of(lambda numbers: numbers.astype(np.float64))),
    "no sums": (CONTRIBUTE, lambda content: without(content, ARRAYS)),
    "no array": (
        CONTRIBUTE,
        lambda content: content.array_records[ARRAYS].update({NUMBERS: Array("u8", (1,), "x", b"x")}),
    ),
    "no name": (CONTRIBUTE, lambda content: without(content, SITE)),
    "another's name": (CONTRIBUTE, lambda content: content.config_records[SITE].update({SITE: "hospital-1"})),
    "no facts": (CONTRIBUTE, lambda content: without(content, CONFIG)),
    "a fractional generation": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({GENERATION: 1.5})),
    "a word for an entry": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({LAST_ENTRY: "last"})),
    "a negative order": (CONTRIBUTE, lambda content: content.config_records[CONFIG].update({LAST_ORDER: -1})),
    "no metrics": (CONTRIBUTE, lambda content: without(content, METRICS)),
    "tallies of another length": (TALLY, numbers_of(lambda numbers: numbers[:1])),
    "no tallies": (TALLY, lambda content: without(content, ARRAYS)),
}


@pytest.mark.parametrize("case", CASES)
def test_round_is_solved_without_a_site_that_does_not_answer_as_it_should(tmp_path: Path, case: str) -> None:
    hospitals = Hospitals(tmp_path / "run", *CASES[case], absent_sites=AbsentSites.LEAVE_OUT)

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    (released,) = hospitals.released
    assert [each.site for each in released.contributions] == ["hospital-1", "hospital-3"]
    assert released.records == 2 * RECORDS


@pytest.mark.parametrize("case", ["none", "that of another site", "that of an officer", "of another authority"])
def test_masked_round_begins_without_a_site_that_shows_a_certificate_that_is_not_its_own(
    tmp_path: Path, case: str
) -> None:
    hospitals = Hospitals(tmp_path / "run")
    hospitals.rounds.authority = hospitals.authority.certificate
    shown = {
        "none": "",
        "that of another site": hospitals.certificates["hospital-1"],
        "that of an officer": hospitals.certify("hospital-2", MemberRole.OFFICER),
        "of another authority": Hospitals(tmp_path / "other").certify("hospital-2"),
    }
    hospitals.certificates["hospital-2"] = shown[case]

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    assert [each.site for each in hospitals.released[0].contributions] == ["hospital-1", "hospital-3"]


def test_run_stops_and_names_the_site_where_all_are_needed(tmp_path: Path) -> None:
    hospitals = Hospitals(tmp_path / "run", *CASES["a fractional generation"], absent_sites=AbsentSites.STOP)

    with pytest.raises(FederationStopped, match=r"hospital-2: generation = 1\.5 is not a whole number"):
        hospitals.rounds.run()
    assert hospitals.released == []


@pytest.mark.parametrize("accuracy", [7.0, math.inf, [0.5, 0.5]])
def test_accuracies_that_cannot_be_are_no_part_of_the_mean(tmp_path: Path, accuracy: Any) -> None:
    def spoil(content: RecordDict) -> None:
        content.metric_records[METRICS]["test-accuracy"] = accuracy

    hospitals = Hospitals(tmp_path / "run", TAKE_RELEASE, spoil)

    hospitals.rounds.run()

    (event,) = hospitals.events()
    assert list(event["failures"]) == ["hospital-2"]
    assert event["mean"]["test-accuracy"] == 0.5
    assert sorted(event["evaluation"]) == ["hospital-1", "hospital-3"]
