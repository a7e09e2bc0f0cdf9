"""A federation that solves for the same weights on plain Flower: no key store, no deletions, no checks, no masks.

What a round of ours costs more is what these are worth. A hospital's records lie in one file of arrays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES, scores
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, choose, left_out_weights, shared_weights, tally
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.model.model_choice import choose_shape
from fedmunkey.common.model.recipe import Recipe
from fedmunkey.common.settings.settings import Settings
from fedmunkey.server.rounds.careful_grid import ENGINE_LOOK_SECONDS

APPS = (f"{__name__}:server", f"{__name__}:client")
RECORDS, SECONDS = "records-{}.npz", "seconds.json"
_ARRAYS, _NUMBERS = "arrays", "numbers"

client = ClientApp()
server = ServerApp()


@client.train("contribute")
def add_up(message: Message, context: Context) -> Message:
    """Send the sums over a hospital's records."""
    settings, read = _about(context)
    numbers, labels, folds = _records(settings, read, context)
    sums = Sums.zeros(SumsShape(FOLDS, read.size, settings.num_classes))
    sums.add(numbers, labels, folds)
    return _reply(message, {_NUMBERS: sums.to_numbers()})


@client.query("tally")
def count(message: Message, context: Context) -> Message:
    """Count how weights answer a hospital's records."""
    settings, read = _about(context)
    left_out = message.content.array_records[_ARRAYS][_NUMBERS].numpy()
    return _reply(message, {_NUMBERS: tally(left_out, *_records(settings, read, context)).reshape(-1)})


@client.evaluate("take_release")
def take(message: Message, context: Context) -> Message:
    """Keep weights in a file, and say how they answer the hospital's records."""
    settings, read = _about(context)
    weights = message.content.array_records[_ARRAYS][_NUMBERS].numpy()
    numbers, labels, _ = _records(settings, read, context)
    np.save(Path(settings.sites_dir) / f"weights-{context.node_config['partition-id']}.npy", weights)
    right = float((scores(numbers, weights).argmax(1) == labels).mean()) if len(labels) else 0.0
    return Message(RecordDict({"metrics": MetricRecord({"accuracy": right})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Solve for weights in each round, and leave the seconds that it took."""
    settings, read = _about(context)
    while len(nodes := list(grid.get_node_ids())) < settings.min_sites:
        time.sleep(ENGINE_LOOK_SECONDS)
    seconds = []
    for _ in range(settings.rounds):
        start = time.perf_counter()
        shape = SumsShape(FOLDS, read.size, settings.num_classes)
        sums = Sums.from_numbers(_total(_ask(grid, nodes, "train.contribute", {}), shape.length), shape)
        left_out = left_out_weights(sums)
        found = _total(_ask(grid, nodes, "query.tally", {_NUMBERS: left_out}), len(RIDGES) * (1 + len(TEMPERATURES)))
        place, choice = choose(found.view(np.int64).reshape(len(RIDGES), -1), sums.records)
        weights = shared_weights(sums, choice.ridge)
        release = Release(weights, left_out[place], choice, read, settings.encoder, {})
        write_release(Path(settings.output_dir) / "weights.safetensors", release)
        _ask(grid, nodes, "evaluate.take_release", {_NUMBERS: weights})
        seconds.append(time.perf_counter() - start)
    (Path(settings.output_dir) / SECONDS).write_text(json.dumps(seconds), encoding="utf-8")


def _ask(grid: Grid, nodes: Sequence[int], kind: str, arrays: Mapping[str, NDArray[Any]]) -> list[Message]:
    """Ask all nodes at once, and look for replies as often as a simulation of ours does: Flower's own waits 3 s."""
    content = {name: Array(array) for name, array in arrays.items()}
    messages = [
        Message(RecordDict({_ARRAYS: ArrayRecord(content)}), dst_node_id=node, message_type=kind) for node in nodes
    ]
    waiting = set(grid.push_messages(messages))
    replies: list[Message] = []
    while waiting:
        found = list(grid.pull_messages(waiting))
        replies += found
        waiting -= {reply.metadata.reply_to_message_id for reply in found}
        if waiting:
            time.sleep(ENGINE_LOOK_SECONDS)
    if faults := [reply.error.reason for reply in replies if reply.has_error()]:
        raise RuntimeError(faults[0])
    return replies


def _total(replies: Sequence[Message], length: int) -> NDArray[np.uint64]:
    total = np.zeros(length, dtype=np.uint64)
    for reply in replies:
        total += reply.content.array_records[_ARRAYS][_NUMBERS].numpy().view(np.uint64)
    return total


def _about(context: Context) -> tuple[Settings, FeatureMap]:
    settings = Settings.parse(context.run_config)
    return settings, FeatureMap.of(Recipe.of(settings), choose_shape(settings))


def _records(
    settings: Settings, read: FeatureMap, context: Context
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a hospital's numbers, labels and folds."""
    with np.load(Path(settings.sites_dir) / RECORDS.format(context.node_config["partition-id"])) as file:
        return read.read(file["keys"], file["features"]), file["labels"], file["folds"]


def _reply(message: Message, arrays: Mapping[str, NDArray[Any]]) -> Message:
    content = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return Message(RecordDict({_ARRAYS: content}), reply_to=message)
