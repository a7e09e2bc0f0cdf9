"""The sites of a run as a round asks them: messages by Flower's grid, replies checked, failures noted by name."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmunkey.common.errors import FederationStopped, InvalidWeights
from fedmunkey.common.programs.round_messages import ARRAYS, CHANGED, CONFIG, NUMBERS
from fedmunkey.server.rounds.careful_grid import LOST
from fedmunkey.server.rounds.run_record import RoundRecord
from fedmunkey.server.rounds.site_replies import check_metrics, registered_names, site_of

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_MOST_BYTES = 2**29
_FEWEST_TOGETHER = 8
_LOST_SECONDS = 60.0
"""How long nodes that were lost are asked again without any of them answering."""

_LOST_PAUSE_SECONDS = 0.5
_COPIES = 4
"""How often at once: Flower's engine gives a message to a worker that has died before one that lives."""
_REPLY_SECONDS = 900.0
"""How long a site may take for one answer; sums over a million records take minutes."""


@dataclass(frozen=True)
class SiteReply:
    """What one site answered: its name, the records of its message, and its metrics, which were checked."""

    node: int
    site: str
    content: RecordDict
    metrics: MetricRecord

    @property
    def config(self) -> ConfigRecord:
        """What it says beside arrays."""
        return self.content.config_records.get(CONFIG, ConfigRecord())

    def whole(self, name: str) -> int:
        """Return a whole number that the reply says, from 0 on; raises `InvalidWeights` if it does not say one."""
        said = self.config.get(name)
        if not isinstance(said, int) or isinstance(said, bool) or said < 0:
            raise InvalidWeights(f"{name} = {said!r} is not a whole number from 0 on")
        return said

    def numbers(self, length: int) -> NDArray[np.uint64]:
        """Return the reply's numbers modulo 2^64; raises `InvalidWeights` if they are of another kind."""
        try:
            array = self.content.array_records[ARRAYS][NUMBERS]
            numbers, said = array.numpy(), (array.dtype, tuple(array.shape))
        except Exception:  # what NumPy makes of any bytes
            numbers, said = np.empty(0), ("", ())
        if not said == (str(numbers.dtype), numbers.shape) == ("uint64", (length,)):
            raise InvalidWeights(f"its reply does not have {length} whole numbers")
        return numbers


@dataclass
class AskedSites:
    """Asks the nodes of a grid, and knows them by their sites' names.

    Attributes
    ----------
    card : str
        Digest of the federation card, by which a site that replies must go; empty without one.
    masked : bool
        Whether sites send sums under masks; such a site is never asked twice for the same.
    round : RoundRecord
        Where failures and bytes are noted.
    changed : bool
        Whether a site has said since this was set to false that its records changed meanwhile.
    """

    grid: Grid
    card: str
    masked: bool
    round: RoundRecord = field(default_factory=lambda: RoundRecord(0))
    changed: bool = False
    _names: dict[int, str] = field(default_factory=dict)
    _registered: dict[int, str] = field(default_factory=dict)

    def ask(
        self,
        kind: str,
        configs: Mapping[int, Mapping[str, Any]],
        arrays: ArrayRecord | None,
        *,
        take: Callable[[SiteReply], None] = lambda _: None,
        reply_bytes: int = 0,
    ) -> list[SiteReply]:
        """Ask nodes, each with what it is told; return the answers in the order of the sites' names.

        Not more of them at a time than have messages and replies of `_MOST_BYTES` together. `take` is called with each
        answer while it has its arrays, which nobody keeps.
        """
        self.round.bytes_down += len(configs) * _size(arrays)
        self._registered = registered_names(self.grid)
        nodes = list(configs)
        together = max(_FEWEST_TOGETHER, _MOST_BYTES // max(reply_bytes + _size(arrays), 1))
        found = []
        for first in range(0, len(nodes), together):
            asked = {node: configs[node] for node in nodes[first : first + together]}
            found += self._ask_together(kind, asked, arrays, take)
        names = Counter(reply.site for reply in found)
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise FederationStopped(f"two nodes say that they are {twice[0]}; revoke the one that is not")
        return sorted(found, key=lambda reply: reply.site)

    def _ask_together(
        self,
        kind: str,
        configs: Mapping[int, Mapping[str, Any]],
        arrays: ArrayRecord | None,
        take: Callable[[SiteReply], None],
    ) -> list[SiteReply]:
        """Ask nodes at once; one that its machine has lost on the way is asked again, where another can take it up.

        Only without masks, so in a simulation: sums under the same mask twice would tell their difference.
        """
        found: list[SiteReply] = []
        deadline, copies = time.monotonic() + _LOST_SECONDS, 1
        while True:
            messages = [
                Message(content=_content(config, arrays), message_type=kind, dst_node_id=node)
                for node, config in configs.items()
                for _ in range(copies)
            ]
            replies = _one_of_each(self.grid.send_and_receive(messages, timeout=_REPLY_SECONDS))
            lost = [node for node, reply in replies.items() if _is_lost(reply)]
            again = bool(lost) and not self.masked and time.monotonic() < deadline
            answers = [self._take(reply, take) for node, reply in replies.items() if not (again and node in lost)]
            found += [answer for answer in answers if answer is not None]
            if not again:
                return found
            if answers:
                deadline = time.monotonic() + _LOST_SECONDS
            configs, copies = {node: configs[node] for node in lost}, _COPIES
            logger.warning("%d sites were lost with the process that held them, and are asked again", len(lost))
            time.sleep(_LOST_PAUSE_SECONDS)

    def _take(self, reply: Message, take: Callable[[SiteReply], None]) -> SiteReply | None:
        """Return what a site has answered, without arrays; None, having noted why, where that is nothing."""
        node = reply.metadata.src_node_id
        if reply.has_error() and reply.error.code == CHANGED:
            self.changed = True
            return None
        try:
            if reply.has_error():
                raise InvalidWeights(reply.error.reason or "unknown reason")
            site = site_of(reply, self._registered, self.card)
            metrics = check_metrics(reply)
        except InvalidWeights as fault:
            self.note_failure(self.name(node), str(fault))
            return None
        self._names[node] = site
        self.round.bytes_up += sum(_size(record) for record in reply.content.array_records.values())
        answer = SiteReply(node, site, reply.content, metrics)
        take(answer)
        # Arrays of a thousand sites are more than fit.
        return replace(answer, content=RecordDict({CONFIG: answer.config}))

    def nodes(self) -> list[int]:
        """Return the nodes that are there, in the order of their sites' names as far as these are known."""
        return sorted(self.grid.get_node_ids(), key=lambda node: self._names.get(node, ""))

    def note_silence(self, nodes: Iterable[int]) -> None:
        """Note which sites did not even answer with an error."""
        for name in map(self.name, sorted(nodes)):
            if name not in self.round.failures:
                self.note_failure(name, "it did not answer in time")

    def reasons(self) -> str:
        """Return what kept sites from taking part, by name."""
        return "; ".join(f"{site}: {why}" for site, why in sorted(self.round.failures.items())) or "no site answered"

    def name(self, node: int) -> str:
        """Return a site's name, or its node's number where that is not known."""
        return self._registered.get(node) or self._names.get(node, f"node {node}")

    def note_failure(self, site: str, reason: str) -> None:
        """Note, and say, why a site could not take part."""
        self.round.failures[site] = reason
        logger.error("%s could not take part: %s", site, reason)


def _is_lost(reply: Message) -> bool:
    return reply.has_error() and reply.error.code == LOST


def _one_of_each(replies: Iterable[Message]) -> dict[int, Message]:
    """Return each node's reply, one that was not lost where there is one."""
    found: dict[int, Message] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in found or _is_lost(found[node]):
            found[node] = reply
    return found


def _content(config: Mapping[str, Any], arrays: ArrayRecord | None) -> RecordDict:
    content = RecordDict({CONFIG: ConfigRecord(dict(config))})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def _size(arrays: ArrayRecord | None) -> int:
    return sum(len(array.data) for array in arrays.values()) if arrays is not None else 0
