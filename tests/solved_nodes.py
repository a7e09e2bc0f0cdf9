"""Three sites that answer a round whose weights are solved for, without masks, one of them as a test has it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
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
from fedmunkey.common.errors import RefusedContributions
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
    ROUND_ID,
    SITE,
    STATEMENT,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.signing.signing_key import SigningKey
from fedmunkey.common.proofs.trusted_keys import Role, TrustedKey, TrustedKeys
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.deletions.coordinator_proofs import contribution_fault
from fedmunkey.server.members.authority import CertificateAuthority
from fedmunkey.server.rounds.run_record import EVENTS, RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from tests.coordinator import fresh_key

READ = FeatureMap((1, 4), 0)
CLASSES, RECORDS = 2, 40
MANY = {node: f"hospital-{node - 10}" for node in range(11, 35)}
NODES = {node: MANY[node] for node in (11, 12, 13)}
GOOD = ("hospital-1", "hospital-3")
KEYS = {name: SigningKey.from_seed(bytes([node]) * 32) for node, name in MANY.items()}
TRUST = TrustedKeys(tuple(TrustedKey(name, Role.SITE, key.public) for name, key in KEYS.items()))

Spoil = Callable[[RecordDict], object]


class Hospitals:
    """Sites that answer a coordinator without masks, all but two of them as a test has it."""

    def __init__(
        self,
        folder: Path,
        spoiled: str = "",
        spoil: Spoil = lambda _: None,
        nodes: Mapping[int, str] = NODES,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.spoiled, self.spoil = spoiled, spoil
        self.nodes = nodes
        self.released: list[ReleasedWeights] = []
        self.authority = CertificateAuthority.make("test", utc_now())
        self.certificates = {name: self.certify(name) for name in nodes.values()}
        grid = create_autospec(Grid, instance=True)
        grid.get_node_ids.return_value = list(nodes)
        grid.get_nodes.return_value = [NodeInfo(node_id=node, name=name) for node, name in nodes.items()]
        grid.send_and_receive.side_effect = self.answer
        chosen = Settings(num_rounds=1, min_sites=2, num_classes=CLASSES, **settings)
        self.rounds = SolvingRounds(*(grid, chosen, READ, RunRecord(folder, {}), lambda _: None), released=self._note)

    def _note(self, released: ReleasedWeights) -> None:
        """Take a release as the deletion service does."""
        faults = {part.site: fault for part in released.contributions if (fault := contribution_fault(part, TRUST))}
        if faults:
            raise RefusedContributions(faults)
        self.released.append(released)

    def certify(self, name: str, role: MemberRole = MemberRole.SITE) -> str:
        return certificate_pem(self.authority.issue(fresh_key(), role, name, utc_now())).decode()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]

    def answer(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        del timeout
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        content = RecordDict({SITE: ConfigRecord({SITE: self.nodes[node]}), METRICS: MetricRecord()})
        if kind == CONTRIBUTE:
            content[ARRAYS] = ArrayRecord({NUMBERS: Array(_sums(node))})
            said = str(message.content.config_records[CONFIG][ROUND_ID])
            statement = signed_statement(self.nodes[node], said, _sums(node))
            content[CONFIG] = ConfigRecord({GENERATION: 1, LAST_ENTRY: RECORDS, LAST_ORDER: 0, STATEMENT: statement})
        elif kind == ANNOUNCE:
            content[CONFIG] = ConfigRecord({CERTIFICATE: self.certificates[self.nodes[node]]})
        elif kind == TALLY:
            found = _tallies(node, message.content.array_records[ARRAYS][NUMBERS].data)
            content[ARRAYS] = ArrayRecord({NUMBERS: Array(found)})
        elif kind == TAKE_RELEASE:
            content[METRICS] = MetricRecord({"entries": RECORDS, "num-examples": 5, "test-accuracy": 0.5})
        if self.nodes[node] not in GOOD and kind == self.spoiled:
            self.spoil(content)
        return Message(content=content, reply_to=message)


def signed_statement(
    site: str, round_id: str, numbers: NDArray[np.uint64], last_order: int = 0, *, key: SigningKey | None = None
) -> str:
    """Return what a site signs about its numbers, or what somebody else does in its name."""
    said = Contribution(site, round_id, last_order, hashlib.sha256(numbers.tobytes()).digest(), utc_now())
    return said.sign(key or KEYS[site]).to_bytes().decode()


@cache
def _records(node: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    drawn = np.random.default_rng(node)
    labels = np.arange(RECORDS, dtype=np.int64) % CLASSES
    features = drawn.normal(size=(RECORDS, 1, 4)).astype(np.float32)
    features[:, 0, 0] += 3 * labels
    return READ.read(np.empty((RECORDS, 0), np.float32), features), labels, np.arange(RECORDS, dtype=np.int64) % FOLDS


@cache
def _sums(node: int) -> NDArray[np.uint64]:
    sums = Sums.zeros(SumsShape(FOLDS, READ.size, CLASSES))
    sums.add(*_records(node))
    return sums.to_numbers()


@lru_cache(maxsize=256)
def _tallies(node: int, weights: bytes) -> NDArray[np.uint64]:
    found = tally(np.load(io.BytesIO(weights)), *_records(node))
    return found.reshape(-1).view(np.uint64)
