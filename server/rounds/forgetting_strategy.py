"""Any Flower strategy, with what a federation that forgets adds to it.

Before a round the deletion service must answer, or nobody trains. Replies are taken in the order of the sites' names,
so that a run is the same whichever site answers first; one that is not as it should be does not count, and its site is
named. After a round its metrics and weights are written down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedmunkey.common.errors import FederationStopped, InvalidWeights
from fedmunkey.common.model.checkpoints import weights_digest
from fedmunkey.common.programs.round_messages import AGAIN, ARRAYS, CONFIG, ENDS_RUN, METRICS, ROUND, SITE, TAKE_OVER
from fedmunkey.server.rounds.run_record import SELECTION, RoundRecord, RunRecord
from fedmunkey.server.rounds.site_replies import (
    EXAMPLES,
    check_metrics,
    check_training,
    registered_names,
    site_of,
    usual_names,
)
from fedmunkey.server.rounds.strategies import average_over_sites

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_REPLY_SECONDS = 900.0
"""How long a site may take to take weights over."""


class ForgettingStrategy(Strategy):
    """Wraps a strategy, which samples sites and averages their weights.

    `open_round` is called with the round's number before it begins, and raises to stop the federation. `write` writes a
    round's weights, with facts about them, to a path. The run has so many `rounds`, of which some were run `before` it
    was cut off: what is started is the rest of them. `clock` returns seconds. Sites with another federation card than
    the one of a digest do not count.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        open_round: Callable[[int], object],
        record: RunRecord,
        write: Callable[[Path, Mapping[str, Tensor], dict[str, Any]], None],
        rounds: int,
        before: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        card: str = "",
    ) -> None:
        self._strategy = strategy
        self._open_round = open_round
        self._record = record
        self._write = write
        self._rounds = rounds
        self._before = before
        self._clock = clock
        self._card = card
        self._round = RoundRecord(0)
        self._arrays = ArrayRecord()
        self._names: dict[int, str] = {}
        self._registered: dict[int, str] = {}
        self._start = 0.0

    def summary(self) -> None:
        """Log the wrapped strategy's configuration."""
        self._strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Wait for the deletion service, then ask the sites to train."""
        self._start = self._clock()
        number = self._before + server_round
        self._open_round(number)
        self._arrays = arrays
        self._registered = registered_names(grid)
        messages = list(self._strategy.configure_train(number, arrays, config, grid))
        self._round = RoundRecord(number, bytes_down=len(messages) * _size(arrays))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the sites' weights, of those that answer as they should; raises `FederationStopped` if none does."""
        answers = self._of_usual_names(self._sort(replies, lambda reply: check_training(reply, self._arrays)))
        self._round = replace(self._round, training=_metrics_of(answers), bytes_up=sum(_sent(a) for a in answers))
        if not answers:
            reasons = "; ".join(sorted(set(self._round.failures.values()))) or "no site answered"
            raise FederationStopped(f"round {self._round.number}: no site could train: {reasons}")
        trained = [answer for answer in answers if answer.content[METRICS][EXAMPLES]]
        if not trained:
            raise FederationStopped(f"round {self._round.number}: no site has a record left to train on")
        arrays, metrics = self._strategy.aggregate_train(server_round, trained)
        if arrays is not None:
            self._arrays = arrays = _as_sent(arrays, self._arrays)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the sites that the strategy samples to evaluate.

        After the last round, which ends the run well, they and all others take the weights over; until then every site
        answers from those that it had before.
        """
        number = self._before + server_round
        last = number == self._rounds
        told = ConfigRecord({**config, **({ENDS_RUN: True} if last else {})})
        messages = list(self._strategy.configure_evaluate(number, arrays, told, grid))
        asked = {message.metadata.dst_node_id for message in messages}
        others = ConfigRecord({**told, ROUND: number, TAKE_OVER: True})
        messages += [
            Message(
                content=RecordDict({ARRAYS: arrays, CONFIG: others}),
                message_type=MessageType.EVALUATE,
                dst_node_id=node,
            )
            for node in grid.get_node_ids()
            if last and node not in asked
        ]
        self._round = replace(self._round, bytes_down=self._round.bytes_down + len(messages) * _size(arrays))
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the sites' metrics, and write the round down."""
        del server_round
        everyone = self._sort(replies)
        answers = [answer for answer in everyone if len(answer.content[METRICS])]
        # Flower's own averages refuse replies of different names; a site decides what it tells.
        metrics = average_over_sites([answer.content for answer in answers], "") if answers else None
        self._round = replace(
            self._round,
            sites=sorted({*self._round.training, *map(_site, everyone)}),
            evaluation=_metrics_of(answers),
            mean={name: float(value) for name, value in (metrics or {}).items()},  # type: ignore[arg-type]
            seconds=self._clock() - self._start,
        )
        weights, about = self._arrays.to_torch_state_dict(), self._record.about(self._round)
        self._round = replace(self._round, digest=weights_digest(weights))
        score = self._round.mean.get(SELECTION)
        self._record.note_round(self._round, lambda path: self._write(path, weights, about), score=score)
        return metrics

    def give_again(self, grid: Grid, arrays: ArrayRecord) -> None:
        """Give weights of an earlier run to every site that is there.

        Raises `FederationStopped` if none takes them over.
        """
        self._registered = registered_names(grid)
        nodes = list(grid.get_node_ids())
        self._round = RoundRecord(
            1, digest=weights_digest(arrays.to_torch_state_dict()), bytes_down=len(nodes) * _size(arrays)
        )
        told = ConfigRecord({ROUND: 1, TAKE_OVER: True, ENDS_RUN: True, AGAIN: True})
        messages = [
            Message(RecordDict({ARRAYS: arrays, CONFIG: told}), message_type=MessageType.EVALUATE, dst_node_id=node)
            for node in nodes
        ]
        answers = self._sort(grid.send_and_receive(messages, timeout=_REPLY_SECONDS))
        if not answers:
            reasons = "; ".join(sorted(set(self._round.failures.values()))) or "no site answered"
            raise FederationStopped(f"no site takes these weights over: {reasons}")
        self._record.note_round(replace(self._round, sites=list(map(_site, answers))), None, score=None)

    def _sort(self, replies: Iterable[Message], check: Callable[[Message], None] = lambda _: None) -> list[Message]:
        """Return the replies that are as they should be, by site; note and log the reasons of the others."""
        good: dict[str, Message] = {}
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            node = reply.metadata.src_node_id
            try:
                if reply.has_error():
                    raise InvalidWeights(reply.error.reason or "unknown reason")
                site = site_of(reply, self._registered, self._card)
                check_metrics(reply)
                check(reply)
                if site in good:
                    raise InvalidWeights(f"it answers as {site}, and another node does")
            except InvalidWeights as fault:
                self._note_failure(node, str(fault))
                continue
            # An error has no room for the site's name, but the node that sends it may have answered before.
            self._names[node] = site
            good[site] = reply
        return [reply for _, reply in sorted(good.items())]

    def _of_usual_names(self, answers: list[Message]) -> list[Message]:
        """Leave out those whose metrics are not those that most sites have: Flower averages equal names only."""
        usual = usual_names([answer.content.metric_records[METRICS] for answer in answers])
        for answer in answers:
            if usual != set(answer.content.metric_records[METRICS]):
                self._note_failure(answer.metadata.src_node_id, "its metrics are not those of the other sites")
        return [answer for answer in answers if usual == set(answer.content.metric_records[METRICS])]

    def _note_failure(self, node: int, reason: str) -> None:
        name = self._registered.get(node) or self._names.get(node, f"node {node}")
        self._round = replace(self._round, failures={**self._round.failures, name: reason})
        logger.error("%s could not take part: %s", name, reason)


def _site(reply: Message) -> str:
    return str(reply.content.config_records[SITE][SITE])


def _metrics_of(replies: list[Message]) -> dict[str, dict[str, float]]:
    records = {_site(reply): reply.content.metric_records[METRICS] for reply in replies}
    return {site: {name: float(value) for name, value in metrics.items()} for site, metrics in records.items()}  # type: ignore[arg-type]


def _as_sent(arrays: ArrayRecord, sent: ArrayRecord) -> ArrayRecord:
    """Return averaged weights in the precision of those sent to the sites; Flower's FedAdam makes them double."""
    return ArrayRecord(
        {
            name: array if array.dtype == sent[name].dtype else Array(array.numpy().astype(sent[name].dtype))
            for name, array in arrays.items()
        }
    )


def _size(arrays: ArrayRecord) -> int:
    return sum(len(array.data) for array in arrays.values())


def _sent(reply: Message) -> int:
    return _size(reply.content.array_records[ARRAYS])
