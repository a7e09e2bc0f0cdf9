"""What sites answer in a round, checked before any of it counts; whoever answers badly is left out, by its name.

A SuperNode is registered under the name that the register of members has for its key, so a site cannot answer in the
name of another. Without authenticated SuperNodes, as in a simulation, a site is taken for whom it says it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fedmunkey.common.deletions.limits import is_line
from fedmunkey.common.errors import InvalidWeights
from fedmunkey.common.programs.round_messages import ARRAYS, CARD, METRICS, SITE

EXAMPLES = "num-examples"

MOST_EXAMPLES = 10_000_000
"""More records than any site has: by them its weights would outweigh all others'."""

_UNBOUNDED = ("epsilon",)
_NAME_CHARACTERS = 100


def registered_names(grid: Grid) -> dict[int, str]:
    """Return the names under which SuperNodes are registered, by node."""
    return {node.node_id: node.name for node in grid.get_nodes() if node.name}


def site_of(reply: Message, registered: Mapping[int, str], card: str = "") -> str:
    """Return the name of the site that answers, under the federation card of a digest where there is one.

    Raises `InvalidWeights` if it names none, or another's, or has another card.
    """
    node = reply.metadata.src_node_id
    record = reply.content.config_records.get(SITE)
    said = None if record is None else record.get(SITE)
    if record is None or not isinstance(said, str) or not said or not is_line(said, _NAME_CHARACTERS):
        raise InvalidWeights("it does not say which site it is")
    if said != registered.get(node, said):
        raise InvalidWeights(f"it answers in the name of {said}")
    held = record.get(CARD, "")
    if card and held != card:
        shown = f"{held:.12}" if isinstance(held, str) and held.isalnum() else "none"
        raise InvalidWeights(
            f"federation card: the site has {shown}, the run is under {card:.12}; there, munkey-client card accept"
        )
    return said


def check_metrics(reply: Message) -> MetricRecord:
    """Return a reply's metrics: those that the site tells, which may be none.

    Raises `InvalidWeights` if there is no record of them, the number of examples cannot be, or a value is no number or
    an accuracy outside of 0 to 1. Not a number stands for what a site without records cannot measure.
    """
    metrics = reply.content.metric_records.get(METRICS)
    if metrics is None:
        raise InvalidWeights("its reply has no metrics")
    examples = metrics.get(EXAMPLES, 0)
    if not isinstance(examples, int) or isinstance(examples, bool) or not 0 <= examples <= MOST_EXAMPLES:
        raise InvalidWeights(f"{EXAMPLES} = {examples!r} is not a whole number from 0 to {MOST_EXAMPLES}")
    for name, value in metrics.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidWeights(f"{name} is not a number")
        beyond = math.isinf(value) and not name.endswith(_UNBOUNDED)
        if beyond or (name.endswith("accuracy") and not (math.isnan(value) or 0 <= value <= 1)):
            raise InvalidWeights(f"{name} = {value} cannot be")
    return metrics


def check_training(reply: Message, sent: ArrayRecord) -> None:
    """Check that a reply says on how many examples it trained, and has weights like those that were sent, all finite.

    Raises `InvalidWeights` if not.
    """
    if EXAMPLES not in check_metrics(reply):
        raise InvalidWeights(f"its reply does not say {EXAMPLES}")
    arrays = reply.content.array_records.get(ARRAYS)
    if arrays is None or set(arrays) != set(sent):
        raise InvalidWeights("its reply does not have the weights that were sent to it")
    for name, array in arrays.items():
        expected = sent[name]
        if tuple(array.shape) != tuple(expected.shape) or array.dtype != expected.dtype:
            said, wanted = (f"{each.dtype} of shape {tuple(each.shape)}" for each in (array, expected))
            raise InvalidWeights(f"weight {name} is {said}, not {wanted}")
        try:
            numbers = array.numpy()
        except Exception as error:  # what NumPy makes of any bytes
            raise InvalidWeights(f"weight {name} cannot be read ({type(error).__name__})") from None
        if numbers.shape != tuple(expected.shape) or str(numbers.dtype) != expected.dtype:
            raise InvalidWeights(f"weight {name} is not what it is said to be")
        if not np.isfinite(numbers).all():
            raise InvalidWeights(f"weight {name} is not finite")


def usual_names(replies: Sequence[MetricRecord]) -> frozenset[str]:
    """Return the names of the metrics that most replies have; of several such sets the first in order."""
    counts = Counter(frozenset(record) for record in replies)
    return min(counts, key=lambda names: (-counts[names], sorted(names)), default=frozenset())
