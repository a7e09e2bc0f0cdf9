"""Rounds in which shared weights are solved for: masked sums, masked tallies, the solution to every site.

Each round asks, in turn, who takes part; for sums; for tallies; and gives the release out. A site that fails before the
tallies are in leaves the others' masks uncancelled, so the round begins again without it, with fresh masks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
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
from fedmunkey.common.errors import (
    FederationStopped,
    InvalidInput,
    InvalidProof,
    InvalidWeights,
    RefusedContributions,
    count_of,
)
from fedmunkey.common.identities.identity import certificate_pem, parse_certificate
from fedmunkey.common.programs.round_messages import (
    AGAIN,
    ANNOUNCE,
    ARRAYS,
    CERTIFICATE,
    CHANGED,
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
from fedmunkey.common.proofs.contributions import Contribution
from fedmunkey.common.proofs.signing.statements import read_envelope
from fedmunkey.common.settings.settings import AbsentSites, Settings
from fedmunkey.server.rounds.careful_grid import LOST
from fedmunkey.server.rounds.run_record import LEFT_OUT, RoundRecord, RunRecord
from fedmunkey.server.rounds.site_replies import check_metrics, registered_names, site_of
from fedmunkey.server.rounds.strategies import average_over_sites

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ATTEMPTS = 4
_POLL_SECONDS = 0.2
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
    given_out : callable
        Called with its digest and the sites that have taken it over; returns which that contributed to it have not.
    need : callable
        Returns what the last release still holds of deleted records.
    before : int
        Rounds that were run before the run was cut off.
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
    given_out: Callable[[str, Collection[str]], Collection[str]] = lambda *_: ()
    need: Callable[[], RenewalNeed] = lambda: RenewalNeed(0, None, None)
    before: int = 0
    clock: Callable[[], float] = time.perf_counter
    _round: RoundRecord = field(default_factory=lambda: RoundRecord(0))
    _names: dict[int, str] = field(default_factory=dict)
    _registered: dict[int, str] = field(default_factory=dict)
    _round_id: str = ""
    _changed: bool = False

    def run(self) -> None:
        """Run all rounds; raises `FederationStopped` where one cannot come to its end."""
        for number in range(self.before + 1, self.settings.rounds + 1):
            self._wait_for_sites()
            start = self.clock()
            self.open_round(number)
            opened = self.clock()
            self._round = RoundRecord(number)
            release = self._solve(number)
            metrics = {LEFT_OUT: release.choice.accuracy, **self._give_out(number, release)}
            ended = self.clock()
            self._round.seconds, self._round.release_seconds = ended - start, ended - opened
            self._round.mean = metrics
            self._round.digest = release.digest()
            described = replace(release, about={**release.about, **self.record.about(self._round)})
            self.record.note_round(self._round, partial(write_release, release=described), score=None)

    def give_again(self, release: Release) -> None:
        """Give an earlier release to every site that is there; raises `FederationStopped` if none takes it over."""
        self._wait_for_sites()
        self._round = RoundRecord(1, digest=release.digest())
        self._round.mean = self._give_out(1, release, again=True)
        if not self._round.sites:
            raise FederationStopped(f"no site takes these weights over: {self._reasons()}")
        self.record.note_round(self._round, None, score=None)

    def _wait_for_sites(self) -> None:
        waiting = False
        while (there := len(list(self.grid.get_node_ids()))) < self.settings.min_sites:
            if not waiting:
                self.record.note_waiting(
                    f"{count_of(there, 'site')} connected, and min-sites = {self.settings.min_sites}"
                )
            waiting = True
            time.sleep(_POLL_SECONDS)

    def _solve(self, number: int) -> Release:
        """Solve for weights with all sites that can take part, beginning again where one fails on the way."""
        nodes = set(self.grid.get_node_ids())
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(number, nodes)
            except _Again as again:
                nodes -= again.without
                logger.warning("round %d begins again%s", number, _without(again.without))
        raise FederationStopped(f"round {number}: a site failed in each of {_ATTEMPTS} attempts; see the lines above")

    def _attempt(self, number: int, nodes: set[int]) -> Release:
        self._changed = False
        self._round_id = f"{time.time_ns()}-{secrets.token_hex(16)}"
        about: dict[str, Any] = {ROUND: number, ROUND_ID: self._round_id}
        if self.authority is not None:
            certificates = self._certificates(nodes, self._ask(ANNOUNCE, dict.fromkeys(nodes, about), None))
            nodes = set(certificates)
            about[PARTICIPANTS] = json.dumps(dict(sorted(certificates.values())))
        shape = SumsShape(FOLDS, self.feature_map.size, self.settings.num_classes)
        said = (GENERATION, LAST_ENTRY, LAST_ORDER)
        replies, total = self._add_up(CONTRIBUTE, dict.fromkeys(nodes, about), None, shape.length, said)
        sums = Sums.from_numbers(total, shape)
        if not sums.records:
            raise FederationStopped(f"round {number}: no site has a record left to solve from")
        changed = self._check_changed(sums.records)
        left_out = left_out_weights(sums)
        asked = {
            reply.node: {**about, **{name: reply.whole(name) for name in (GENERATION, LAST_ENTRY)}} for reply in replies
        }
        weights = ArrayRecord({NUMBERS: Array(left_out)})
        _, total = self._add_up(TALLY, asked, weights, len(RIDGES) * (1 + len(TEMPERATURES)))
        tallies = total.view(np.int64)
        place, choice = choose(tallies.reshape(len(RIDGES), -1), sums.records)
        facts = {"sites": sorted(reply.site for reply in replies), "records": sums.records}
        counts = sums.counts.sum(0).astype(int).tolist()
        self._round.classes = {str(label): count for label, count in enumerate(counts)}
        release = Release(
            shared_weights(sums, choice.ridge), left_out[place], choice, self.feature_map, self.settings.encoder, facts
        )
        logger.info(
            "round %d: %d records of %d sites, ridge %g, left-out accuracy %.1f%%",
            *(number, sums.records, len(replies), choice.ridge, 100 * choice.accuracy),
        )
        self._release(
            ReleasedWeights(release.digest(), sums.records, changed, tuple(map(_contributed, replies))), nodes
        )
        return release

    def _release(self, released: ReleasedWeights, nodes: Collection[int]) -> None:
        """Have a release written down; begins again without sites whose contributions are refused."""
        try:
            self.released(released)
        except RefusedContributions as refused:
            for site, why in refused.faults.items():
                self._note_failure(site, f"its contribution is refused: {why}")
            bad = {node for node in nodes if self._name(node) in refused.faults}
            if not bad or bad == set(nodes) or self.settings.absent_sites is AbsentSites.STOP:
                raise
            raise _Again(bad) from None

    def _check_changed(self, records: int) -> int:
        """Return how many records have changed since the last release, as far as totals tell.

        Raises `FederationStopped` if these are so few that whoever has both weights could tell them.
        """
        need = self.need()
        if need.records is None:
            return records
        changed = need.changed(records)
        if 0 < changed < self.settings.fewest_changed and not self.settings.release_now:
            until = f", or until {need.renew_by:%Y-%m-%d %H:%M} UTC, when it is due" if need.renew_by else ""
            raise FederationStopped(
                f"{count_of(changed, 'record has', 'records have')} changed since the last release, "
                f"fewer than fewest-changed = {self.settings.fewest_changed}, "
                f"and with both weights somebody could tell them; wait for more{until}, "
                "or run with --now (release-now = true)"
            )
        return changed

    def _certificates(self, asked: set[int], announced: list[SiteReply]) -> dict[int, tuple[str, str]]:
        """Return, by node, name and certificate of those that can take part in a masked round.

        Raises `FederationStopped` if there are too few of them, or the settings want all.
        """
        found = {}
        for reply in announced:
            certificate = str(reply.config.get(CERTIFICATE, ""))
            try:
                self._participants({reply.site: certificate}, fewest=1)
                if self.authority is not None:
                    _check_bare(certificate)
            except InvalidInput as error:
                self._note_failure(reply.site, str(error))
                continue
            found[reply.node] = (reply.site, certificate)
        self._note_silence(asked - {reply.node for reply in announced})
        if len(found) < len(asked) and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"round {self._round.number}: {self._reasons()}; absent-sites = stop")
        if not found:
            raise FederationStopped(f"round {self._round.number}: no site could take part: {self._reasons()}")
        self._participants(dict(found.values()), fewest=min(FEWEST_PARTICIPANTS, self.settings.min_sites))
        return found

    def _participants(self, certificates: Mapping[str, str], *, fewest: int) -> None:
        if self.authority is not None:
            Participants.check(self._round_id, certificates, self.authority, fewest=fewest)

    def _add_up(
        self,
        kind: str,
        configs: Mapping[int, Mapping[str, Any]],
        arrays: ArrayRecord | None,
        length: int,
        said: Iterable[str] = (),
    ) -> tuple[list[SiteReply], NDArray[np.uint64]]:
        """Ask sites for numbers and add these modulo 2^64, in which the masks cancel; return the replies without them.

        Each must say some whole numbers beside them. Begins again without those that failed; raises `FederationStopped`
        where the settings want all of them.
        """
        total, added = np.zeros(length, dtype=np.uint64), set()

        def add(reply: SiteReply) -> None:
            try:
                for name in said:
                    reply.whole(name)
                numbers = reply.numbers(length)
                if said:
                    _check_statement(reply, self._round_id, numbers)
                np.add(total, numbers, out=total)
            except InvalidWeights as error:
                self._note_failure(reply.site, str(error))
                return
            added.add(reply.node)

        asked = set(configs)
        replies = self._ask(kind, configs, arrays, take=add, reply_bytes=total.nbytes)
        if self._changed:
            # Sums and tallies would be of different records.
            raise _Again(())
        missing = asked - added
        self._note_silence(asked - {reply.node for reply in replies})
        if missing and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"round {self._round.number}: {self._reasons()}; absent-sites = stop")
        if missing == asked:
            raise FederationStopped(f"round {self._round.number}: no site could take part: {self._reasons()}")
        if missing:
            raise _Again(missing)
        return replies, total

    def _note_silence(self, nodes: Iterable[int]) -> None:
        """Note which sites did not even answer with an error."""
        for name in map(self._name, sorted(nodes)):
            if name not in self._round.failures:
                self._note_failure(name, "it did not answer in time")

    def _reasons(self) -> str:
        return "; ".join(f"{site}: {why}" for site, why in sorted(self._round.failures.items())) or "no site answered"

    def _give_out(self, number: int, release: Release, *, again: bool = False) -> dict[str, float]:
        """Give a release to every site that is there; return the mean of what those say that are asked to evaluate."""
        nodes = sorted(self.grid.get_node_ids(), key=lambda node: self._names.get(node, ""))
        few = self.settings.fraction_evaluate
        asked = set(nodes[: round(few * len(nodes))])
        choice = json.dumps(asdict(release.choice))
        about = {ROUND: number, ROUND_ID: self._round_id, RELEASE: choice, DIGEST: release.digest()}
        arrays = ArrayRecord({name: Array(array) for name, array in release.arrays().items()})
        content = {node: {**about, AGAIN: again, TAKE_OVER: node not in asked} for node in nodes}
        replies = self._ask(TAKE_RELEASE, content, arrays)
        self._note_silence(set(nodes) - {reply.node for reply in replies})
        told = {
            reply.site: {name: float(value) for name, value in reply.metrics.items()}  # type: ignore[arg-type]
            for reply in replies
        }
        self._round.sites = sorted(told)
        if told and (lacking := self.given_out(release.digest(), self._round.sites)):
            logger.warning(
                "round %d: %s did not take the release over, so deletions wait for it; they are completed by a round "
                "in which every site that takes part does",
                *(number, ", ".join(sorted(lacking))),
            )
        self._round.evaluation = {site: metrics for site, metrics in told.items() if metrics}
        contents = [RecordDict({METRICS: MetricRecord(dict(metrics))}) for metrics in self._round.evaluation.values()]
        averaged = average_over_sites(contents, "") if contents else MetricRecord()
        return {name: float(value) for name, value in averaged.items()}  # type: ignore[arg-type]

    def _ask(
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
        self._round.bytes_down += len(configs) * _size(arrays)
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
            again = bool(lost) and self.authority is None and time.monotonic() < deadline
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
            self._changed = True
            return None
        try:
            if reply.has_error():
                raise InvalidWeights(reply.error.reason or "unknown reason")
            site = site_of(reply, self._registered, self.settings.federation_card)
            metrics = check_metrics(reply)
        except InvalidWeights as fault:
            self._note_failure(self._name(node), str(fault))
            return None
        self._names[node] = site
        self._round.bytes_up += sum(_size(record) for record in reply.content.array_records.values())
        answer = SiteReply(node, site, reply.content, metrics)
        take(answer)
        # Arrays of a thousand sites are more than fit.
        return replace(answer, content=RecordDict({CONFIG: answer.config}))

    def _name(self, node: int) -> str:
        return self._registered.get(node) or self._names.get(node, f"node {node}")

    def _note_failure(self, site: str, reason: str) -> None:
        self._round.failures[site] = reason
        logger.error("%s could not take part: %s", site, reason)


def _check_bare(certificate: str) -> None:
    """Check that a site shows a certificate and nothing beside it, which every other site would be sent."""
    if certificate_pem(parse_certificate(certificate.encode(), "a certificate in a round")).decode() != certificate:
        raise InvalidProof("it shows more than its certificate; its program is of another version")


def _check_statement(reply: SiteReply, round_id: str, numbers: NDArray[np.uint64]) -> None:
    """Check that what a site has signed, if anything, is about the numbers that it sends for this round.

    Whether its key has signed it, the deletion service knows. Raises `InvalidWeights` if it is about others.
    """
    statement = reply.config.get(STATEMENT, "")
    if statement == "":
        return
    try:
        if not isinstance(statement, str):
            raise InvalidProof("it is no text")
        said = Contribution.of(read_envelope(statement.encode()))
    except InvalidProof as error:
        raise InvalidWeights(f"its signed statement cannot be read: {error}") from None
    digest = hashlib.sha256(numbers.tobytes()).digest()
    if said != replace(said, site=reply.site, round_id=round_id, last_order=reply.whole(LAST_ORDER), numbers=digest):
        raise InvalidWeights("its signed statement is not about the numbers that it sends for this round")


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


def _contributed(reply: SiteReply) -> SiteContribution:
    return SiteContribution(reply.site, reply.whole(LAST_ORDER), str(reply.config.get(STATEMENT, "")).encode())


def _without(nodes: Collection[int]) -> str:
    return f" without {count_of(len(nodes), 'site')}" if nodes else ": records were deleted meanwhile"


def _content(config: Mapping[str, Any], arrays: ArrayRecord | None) -> RecordDict:
    content = RecordDict({CONFIG: ConfigRecord(dict(config))})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def _size(arrays: ArrayRecord | None) -> int:
    return sum(len(array.data) for array in arrays.values()) if arrays is not None else 0
