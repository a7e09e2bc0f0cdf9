"""A site that trains round after round, as its Flower app does, and the coordinator that announces them.

The site's real ClientApp answers messages like Flower's; only Flower's way of carrying them is left out. Each round
begins at the deletion service, as the coordinator's ServerApp begins it.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from functools import partial
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedmunkey.client.app import app
from fedmunkey.client.site import SiteFolder, model_shape
from fedmunkey.common.model.model import Munkey
from fedmunkey.common.programs.round_messages import ARRAYS, CONFIG, ROUND
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.service.waiting import jitter, wait_for_service
from fedmunkey.common.settings.settings import Settings
from fedmunkey.common.settings.settings_text import parse_assignments
from fedmunkey.simulations.faults.federation import TRAINED

_PAUSE = 0.05
"""Between two rounds, so that the machine's cores are there for others as well."""

_LONGEST_WAIT = 0.5
"""Between two attempts to reach a service that is killed every few seconds: training is to be under way meanwhile."""


def main() -> None:
    """Train until the process is ended. Its words are the site's folder, and settings as key=value."""
    # Flower makes messages for the task that its process runs.
    TaskIdentity._run_id = TaskIdentity._node_id = TaskIdentity._task_id = 1
    torch.set_num_threads(1)
    folder, *assignments = sys.argv[1:]
    settings = Settings.parse(parse_assignments(assignments))
    with SiteFolder(Path(folder)).open() as store:
        weights = ArrayRecord(Munkey(model_shape(settings, store.description)).state_dict())
    context = Context(0, 1, {"site-dir": folder}, RecordDict(), dict(settings.to_config()))
    with DeletionChannel(settings.deletion_service) as service:
        for number in itertools.count(1):
            announce = partial(service.open_round, number)
            wait_for_service(announce, patience=math.inf, wait=_wait, draw=jitter())
            weights = _hold_round(1 + (number - 1) % settings.rounds, weights, context)
            time.sleep(_PAUSE)


def _wait(seconds: float) -> None:
    time.sleep(min(seconds, _LONGEST_WAIT))


def _hold_round(number: int, weights: ArrayRecord, context: Context) -> ArrayRecord:
    """Have the site train and evaluate; return the weights that it has sent, or those from before if it could not."""
    for kind in (MessageType.TRAIN, MessageType.EVALUATE):
        content = RecordDict({ARRAYS: weights, CONFIG: ConfigRecord({ROUND: number})})
        reply = app(Message(content, dst_node_id=1, message_type=kind), context)
        if reply.has_error():
            sys.stdout.write(f"round {number}: {reply.error.reason}\n")
            return weights
        if kind == MessageType.TRAIN:
            weights = reply.content.array_records[ARRAYS]
    sys.stdout.write(f"round {number}: {TRAINED}\n")
    sys.stdout.flush()
    return weights
