"""Rounds in which shared weights are solved for: masked sums, masked tallies, the solution to every site.

Each round asks, in turn, who takes part; for sums; for tallies; and gives the release out. A site that fails before the
tallies are in leaves the others' masks uncancelled, so the round begins again without it, with fresh masks.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from cryptography import x509
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmunkey.common.closed_form.feature_map import FeatureMap
from fedmunkey.common.closed_form.folds import FOLDS
from fedmunkey.common.closed_form.linear_answers import TEMPERATURES
from fedmunkey.common.closed_form.masks import FEWEST_PARTICIPANTS, Participants
from fedmunkey.common.closed_form.release import Release, write_release
from fedmunkey.common.closed_form.solving import RIDGES, choose, left_out_weights, shared_weights
from fedmunkey.common.closed_form.sums import Sums, SumsShape
from fedmunkey.common.deletions.renewals import ReleasedWeights, RenewalNeed, SiteContribution
from fedmunkey.common.errors import FederationStopped, InvalidIdentity, InvalidProof, InvalidWeights
from fedmunkey.common.programs.round_messages import (
    ANNOUNCE,
    ARRAYS,
    CERTIFICATE,
    CONFIG,
    CONTRIBUTE,
    DIGEST,
    GENERATION,
    LAST_ENTRY,
    LAST_ORDER,
    METRICS,
    NUMBERS,
    PARTICIPANTS,
    RELEASE,
    ROUND,
    ROUND_ID,
    STATEMENT,
    TAKE_OVER,
    TAKE_RELEASE,
    TALLY,
)
from fedmunkey.common.settings.settings import AbsentSites, Settings
from fedmunkey.server.rounds.run_record import RoundRecord, RunRecord
from fedmunkey.server.rounds.site_replies import check_metrics, registered_names, site_of, usual_names
from fedmunkey.server.rounds.strategies import average_over_sites

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ATTEMPTS = 4
_POLL_SECONDS = 0.2
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
            raise InvalidWeights(f"{name} = {said!r} is not a whole number")
        return said

    def numbers(self, length: int) -> NDArray[np.uint64]:
        """Return the reply's numbers modulo 2^64; raises `InvalidWeights` if they are of another kind."""
        try:
            numbers = self.content.array_records[ARRAYS][NUMBERS].numpy()
        except Exception:  # what NumPy makes of any bytes
            numbers = np.empty(0)
        if numbers.shape != (length,) or numbers.dtype != np.uint64:
            raise InvalidWeights(f"{self.site} did not send {length} whole numbers")
        return numbers


class _Again(Exception):  # noqa: N818
    """The round has to begin again, without some nodes."""

    def __init__(self, without: Iterable[int]) -> None:
        super().__init__()
        self.without = frozenset(without)


@dataclass
class SolvingRounds:
    """Solves for shared weights, round after round.

    Attributes
    ----------
    authority : Certificate, optional
        The federation's, whose members take part under masks; without one sums are sent as they are.
    open_round : callable
        Called with the round's number before it begins; raises to stop the federation.
    released : callable
        Called with what was solved for, before any site has it.
    need : callable
        Returns what the last release still holds of deleted records.
    clock : callable
        Returns seconds.
    """

    grid: Grid
    settings: Settings
    feature_map: FeatureMap
    record: RunRecord
    open_round: Callable[[int], object]
    authority: x509.Certificate | None = None
    released: Callable[[ReleasedWeights], None] = lambda _: None
    need: Callable[[], RenewalNeed] = lambda: RenewalNeed(0, None, None)
    clock: Callable[[], float] = time.perf_counter
    _round: RoundRecord = field(default_factory=lambda: RoundRecord(0))
    _names: dict[int, str] = field(default_factory=dict)
    _round_id: str = ""

    def run(self) -> None:
        """Run all rounds; raises `FederationStopped` where one cannot come to its end."""
        for number in range(1, self.settings.rounds + 1):
            self._wait_for_sites()
            start = self.clock()
            self.open_round(number)
            self._round = RoundRecord(number)
            release = self._solve(number)
            metrics = self._give_out(number, release)
            self._round.seconds = self.clock() - start
            self._round.mean = metrics
            described = replace(release, about={**release.about, **self.record.about(self._round)})
            self.record.note_round(self._round, partial(write_release, release=described), score=None)

    def _wait_for_sites(self) -> None:
        while len(list(self.grid.get_node_ids())) < self.settings.min_sites:
            time.sleep(_POLL_SECONDS)

    def _solve(self, number: int) -> Release:
        """Solve for weights with all sites that can take part, beginning again where one fails on the way."""
        nodes = set(self.grid.get_node_ids())
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(number, nodes)
            except _Again as again:
                nodes -= again.without
                logger.warning("round %d begins again without %d sites", number, len(again.without))
        raise FederationStopped(f"round {number}: a site failed in each of {_ATTEMPTS} attempts; see the lines above")

    def _attempt(self, number: int, nodes: set[int]) -> Release:
        self._round_id = f"{time.time_ns()}-{secrets.token_hex(16)}"
        about: dict[str, Any] = {ROUND: number, ROUND_ID: self._round_id}
        if self.authority is not None:
            announced = self._ask(ANNOUNCE, dict.fromkeys(nodes, about), None)
            if not announced:
                raise FederationStopped(f"round {number}: no site could take part: {self._reasons()}")
            nodes = {reply.node for reply in announced}
            about |= self._announce_participants(announced, self.authority)
        replies = self._ask(CONTRIBUTE, dict.fromkeys(nodes, about), None)
        self._check_all(nodes, replies)
        self._check_each(replies, _contributed)
        shape = SumsShape(FOLDS, self.feature_map.size, self.settings.num_classes)
        sums = Sums.from_numbers(self._add_up(replies, shape.length), shape)
        if not sums.records:
            raise FederationStopped(f"round {number}: no site has a record left to solve from")
        changed = self._check_changed(sums.records)
        left_out = left_out_weights(sums)
        asked = {
            reply.node: {**about, **{name: reply.whole(name) for name in (GENERATION, LAST_ENTRY)}} for reply in replies
        }
        counted = self._ask(TALLY, asked, ArrayRecord({NUMBERS: Array(left_out)}))
        self._check_all(nodes, counted)
        tallies = self._add_up(counted, len(RIDGES) * (1 + len(TEMPERATURES))).view(np.int64)
        place, choice = choose(tallies.reshape(len(RIDGES), -1), sums.records)
        facts = {"sites": sorted(reply.site for reply in replies), "records": sums.records}
        weights = shared_weights(sums, choice.ridge)
        release = Release(weights, left_out[place], choice, self.feature_map, self.settings.encoder, facts)
        logger.info(
            "round %d: %d records of %d sites, ridge %g, left-out accuracy %.1f%%",
            *(number, sums.records, len(replies), choice.ridge, 100 * choice.accuracy),
        )
        self.released(ReleasedWeights(release.digest(), sums.records, changed, tuple(map(_contributed, replies))))
        return release

    def _check_changed(self, records: int) -> int:
        """Return how many records have changed since the last release, as far as totals tell.

        Raises `FederationStopped` if these are so few that whoever has both weights could tell them.
        """
        need = self.need()
        if need.records is None:
            return records
        changed = need.entries + abs(records - (need.records - need.entries))
        if 0 < changed < self.settings.fewest_changed and not self.settings.release_now:
            until = f", or until {need.renew_by:%Y-%m-%d %H:%M} UTC, when it is due" if need.renew_by else ""
            raise FederationStopped(
                f"{changed} records have changed since the last release, fewer than fewest-changed = "
                f"{self.settings.fewest_changed}, and with both weights somebody could tell them; wait for "
                f"more{until}, or run with --now (release-now = true)"
            )
        return changed

    def _announce_participants(self, announced: list[SiteReply], authority: x509.Certificate) -> dict[str, Any]:
        """Return what tells the sites of a masked round who takes part."""

        def check(reply: SiteReply) -> None:
            Participants.check(
                self._round_id, {reply.site: str(reply.config.get(CERTIFICATE, ""))}, authority, fewest=1
            )

        self._check_each(announced, check)
        certificates = {reply.site: str(reply.config.get(CERTIFICATE, "")) for reply in announced}
        if len(certificates) < len(announced):
            raise FederationStopped("two nodes say that they are the same site; revoke the one that is not")
        fewest = min(FEWEST_PARTICIPANTS, max(self.settings.min_sites, 1))
        Participants.check(self._round_id, certificates, authority, fewest=fewest)
        return {PARTICIPANTS: json.dumps(dict(sorted(certificates.items())))}

    def _add_up(self, replies: list[SiteReply], length: int) -> NDArray[np.uint64]:
        """Add all sites' numbers modulo 2^64, in which the masks cancel."""
        total = np.zeros(length, dtype=np.uint64)
        for reply in replies:
            try:
                total += reply.numbers(length)
            except InvalidWeights as error:
                self._note_failure(reply.site, str(error))
                raise _Again([reply.node]) from None
        return total

    def _check_each(self, replies: list[SiteReply], check: Callable[[SiteReply], object]) -> None:
        """Begin again without the sites of which a check says that they did not answer as they should."""
        bad = []
        for reply in replies:
            try:
                check(reply)
            except (InvalidWeights, InvalidProof, InvalidIdentity) as error:
                self._note_failure(reply.site, str(error))
                bad.append(reply.node)
        if bad and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"round {self._round.number}: {self._reasons()}; absent-sites = stop")
        if bad:
            raise _Again(bad)

    def _check_all(self, asked: set[int], replies: list[SiteReply]) -> None:
        """Begin again without those that failed; raises `FederationStopped` where the settings want all of them."""
        missing = asked - {reply.node for reply in replies}
        if missing and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"round {self._round.number}: {self._reasons()}; absent-sites = stop")
        if len(replies) < self.settings.min_sites and missing == asked:
            raise FederationStopped(f"round {self._round.number}: no site could take part: {self._reasons()}")
        if missing:
            raise _Again(missing)

    def _reasons(self) -> str:
        return "; ".join(f"{site}: {why}" for site, why in sorted(self._round.failures.items())) or "no site answered"

    def _give_out(self, number: int, release: Release) -> dict[str, float]:
        """Give a release to every site that is there; return the mean of what those say that are asked to evaluate."""
        nodes = sorted(self.grid.get_node_ids(), key=lambda node: self._names.get(node, ""))
        few = self.settings.fraction_evaluate
        asked = set(nodes[: round(few * len(nodes))])
        choice = json.dumps(asdict(release.choice))
        about = {ROUND: number, ROUND_ID: self._round_id, RELEASE: choice, DIGEST: release.digest()}
        arrays = ArrayRecord({name: Array(array) for name, array in release.arrays().items()})
        content = {node: {**about, TAKE_OVER: node not in asked} for node in nodes}
        answers = [reply for reply in self._ask(TAKE_RELEASE, content, arrays) if len(reply.metrics)]
        usual = usual_names([reply.metrics for reply in answers])
        for reply in answers:
            if set(reply.metrics) != usual:
                self._note_failure(reply.site, "its metrics are not those of the other sites")
        answers = [reply for reply in answers if set(reply.metrics) == usual]
        self._round.evaluation = {
            reply.site: {name: float(value) for name, value in reply.metrics.items()}  # type: ignore[arg-type]
            for reply in answers
        }
        if not answers:
            return {}
        contents = [RecordDict({METRICS: reply.metrics}) for reply in answers]
        return {name: float(value) for name, value in average_over_sites(contents, "").items()}  # type: ignore[arg-type]

    def _ask(self, kind: str, configs: Mapping[int, Mapping[str, Any]], arrays: ArrayRecord | None) -> list[SiteReply]:
        """Ask nodes, each with what it is told; return the answers in the order of the sites' names."""
        messages = [
            Message(content=_content(config, arrays), message_type=kind, dst_node_id=node)
            for node, config in configs.items()
        ]
        self._round.bytes_down += len(messages) * _size(arrays)
        found, registered = [], registered_names(self.grid)
        for reply in self.grid.send_and_receive(messages, timeout=_REPLY_SECONDS):
            node = reply.metadata.src_node_id
            try:
                if reply.has_error():
                    raise InvalidWeights(reply.error.reason or "unknown reason")
                site = site_of(reply, registered)
                metrics = check_metrics(reply)
            except InvalidWeights as fault:
                name = registered.get(node) or self._names.get(node, f"node {node}")
                self._note_failure(name, str(fault))
                continue
            self._names[node] = site
            self._round.bytes_up += sum(_size(record) for record in reply.content.array_records.values())
            found.append(SiteReply(node, site, reply.content, metrics))
        return sorted(found, key=lambda reply: reply.site)

    def _note_failure(self, site: str, reason: str) -> None:
        self._round.failures[site] = reason
        logger.error("%s could not take part: %s", site, reason)


def _contributed(reply: SiteReply) -> SiteContribution:
    for name in (GENERATION, LAST_ENTRY):
        reply.whole(name)
    return SiteContribution(reply.site, reply.whole(LAST_ORDER), str(reply.config.get(STATEMENT, "")).encode())


def _content(config: Mapping[str, Any], arrays: ArrayRecord | None) -> RecordDict:
    content = RecordDict({CONFIG: ConfigRecord(dict(config))})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def _size(arrays: ArrayRecord | None) -> int:
    return sum(len(array.data) for array in arrays.values()) if arrays is not None else 0
