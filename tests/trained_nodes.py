"""Three nodes that a test plays, which answer a strategy that averages trained weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedmunkey.common.model.checkpoints import Checkpoint, write_checkpoint
from fedmunkey.common.model.model import ModelShape, Munkey
from fedmunkey.common.programs.round_messages import ARRAYS, METRICS, SITE
from fedmunkey.common.settings.settings import ImagePath, Settings, StrategyName
from fedmunkey.server.rounds.forgetting_strategy import ForgettingStrategy
from fedmunkey.server.rounds.run_record import EVENTS, RunRecord
from fedmunkey.server.rounds.strategies import make_strategy

SHAPE = ModelShape(ImagePath.FROZEN, (1, 4), 0, num_classes=2, width=8, depth=1, heads=1, exemplar_size=2)
MANY = {node: f"hospital-{node - 10}" for node in range(11, 35)}
NODES = {node: MANY[node] for node in (11, 12, 13)}


class Federation:
    """A strategy around one of Flower's, on a grid of nodes that the test plays."""

    def __init__(
        self,
        folder: Path,
        open_round: Callable[[int], object],
        name: StrategyName,
        nodes: Iterable[int] = NODES,
        rounds: int = 1,
        before: int = 0,
        **changes: Any,
    ) -> None:
        self.folder = folder
        self.grid: Any = create_autospec(Grid, instance=True)
        self.grid.get_node_ids.return_value = list(nodes)
        ticks = itertools.count()
        self.strategy = ForgettingStrategy(
            make_strategy(Settings(strategy=name, min_sites=3, **changes)),
            open_round=open_round,
            record=RunRecord(folder, {}),
            write=lambda path, weights, about: write_checkpoint(path, Checkpoint(weights, SHAPE, "descriptor", about)),
            rounds=rounds,
            before=before,
            clock=lambda: float(next(ticks)),
        )

    def ask(self, number: int = 1, arrays: ArrayRecord | None = None) -> dict[str, Message]:
        """Begin a round; return the message to each site."""
        messages = self.strategy.configure_train(number, arrays or weights(0), ConfigRecord(), self.grid)
        return {MANY[message.metadata.dst_node_id]: message for message in messages}

    def evaluate(self, number: int = 1) -> dict[str, Message]:
        messages = self.strategy.configure_evaluate(number, weights(0), ConfigRecord(), self.grid)
        return {MANY[message.metadata.dst_node_id]: message for message in messages}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / EVENTS).read_text().splitlines()]


def weights(value: float) -> ArrayRecord:
    return ArrayRecord({name: torch.full_like(weight, value) for name, weight in Munkey(SHAPE).state_dict().items()})


def trained(message: Message, value: float, examples: int = 10) -> Message:
    metrics = MetricRecord({"num-examples": examples, "train-loss": value})
    return reply(message, RecordDict({METRICS: metrics, ARRAYS: weights(value)}))


def evaluated(message: Message, accuracy: float) -> Message:
    return reply(message, RecordDict({METRICS: MetricRecord({"num-examples": 5, "test-accuracy": accuracy})}))


def reply(message: Message, content: RecordDict) -> Message:
    content[SITE] = ConfigRecord({SITE: MANY[message.metadata.dst_node_id]})
    return Message(content=content, reply_to=message)
