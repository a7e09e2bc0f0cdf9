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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from cryptography import x509
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
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
    CERTIFICATE,
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
from fedmunkey.server.rounds.asked_sites import AskedSites, SiteReply
from fedmunkey.server.rounds.run_record import LEFT_OUT, RoundRecord, RunRecord
from fedmunkey.server.rounds.strategies import average_over_sites

# Flower shows what the children of its own logger say.
logger = logging.getLogger(f"flwr.{__name__}")

_ATTEMPTS = 4
_POLL_SECONDS = 0.2


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
    _sites: AskedSites = field(init=False)
    _round_id: str = ""

    def run(self) -> None:
        """Run all rounds; raises `FederationStopped` where one cannot come to its end."""
        self._begin()
        for number in range(self.before + 1, self.settings.rounds + 1):
            self._wait_for_sites()
            start = self.clock()
            self.open_round(number)
            opened = self.clock()
            self._sites.round = RoundRecord(number)
            release = self._solve(number)
            metrics = {LEFT_OUT: release.choice.accuracy, **self._give_out(number, release)}
            ended = self.clock()
            self._sites.round.seconds, self._sites.round.release_seconds = ended - start, ended - opened
            self._sites.round.mean = metrics
            self._sites.round.digest = release.digest()
            described = replace(release, about={**release.about, **self.record.about(self._sites.round)})
            self.record.note_round(self._sites.round, partial(write_release, release=described), score=None)

    def give_again(self, release: Release) -> None:
        """Give an earlier release to every site that is there; raises `FederationStopped` if none takes it over."""
        self._begin()
        self._wait_for_sites()
        self._sites.round = RoundRecord(1, digest=release.digest())
        self._sites.round.mean = self._give_out(1, release, again=True)
        if not self._sites.round.sites:
            raise FederationStopped(f"no site takes these weights over: {self._sites.reasons()}")
        self.record.note_round(self._sites.round, None, score=None)

    def _begin(self) -> None:
        self._sites = AskedSites(self.grid, self.settings.federation_card, masked=self.authority is not None)

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
        self._sites.changed = False
        self._round_id = f"{time.time_ns()}-{secrets.token_hex(16)}"
        about: dict[str, Any] = {ROUND: number, ROUND_ID: self._round_id}
        if self.authority is not None:
            certificates = self._certificates(nodes, self._sites.ask(ANNOUNCE, dict.fromkeys(nodes, about), None))
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
        self._sites.round.classes = {str(label): count for label, count in enumerate(counts)}
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
                self._sites.note_failure(site, f"its contribution is refused: {why}")
            bad = {node for node in nodes if self._sites.name(node) in refused.faults}
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
                self._sites.note_failure(reply.site, str(error))
                continue
            found[reply.node] = (reply.site, certificate)
        self._sites.note_silence(asked - {reply.node for reply in announced})
        if len(found) < len(asked) and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"{self._at()}: {self._sites.reasons()}; absent-sites = stop")
        if not found:
            raise FederationStopped(
                f"round {self._sites.round.number}: no site could take part: {self._sites.reasons()}"
            )
        self._participants(dict(found.values()), fewest=min(FEWEST_PARTICIPANTS, self.settings.min_sites))
        return found

    def _nobody(self) -> FederationStopped:
        return FederationStopped(f"{self._at()}: no site could take part: {self._sites.reasons()}")

    def _at(self) -> str:
        return f"round {self._sites.round.number}"

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

        Each must say some whole numbers beside them. Begins again without those that failed, unless nothing was masked
        and they failed at once; raises `FederationStopped` where the settings want all of them.
        """
        total, added = np.zeros(length, dtype=np.uint64), set()

        def add(reply: SiteReply) -> None:
            """Add what a site sends, or note by its name why that does not count."""
            try:
                for name in said:
                    reply.whole(name)
                numbers = reply.numbers(length)
                if said:
                    _check_statement(reply, self._round_id, numbers)
                np.add(total, numbers, out=total)
            except InvalidWeights as error:
                self._sites.note_failure(reply.site, str(error))
                return
            added.add(reply.node)

        asked = set(configs)
        replies = self._sites.ask(kind, configs, arrays, take=add, reply_bytes=total.nbytes)
        if self._sites.changed:
            # Sums and tallies would be of different records.
            raise _Again(())
        missing = asked - added
        self._sites.note_silence(asked - {reply.node for reply in replies})
        if missing and self.settings.absent_sites is AbsentSites.STOP:
            raise FederationStopped(f"{self._at()}: {self._sites.reasons()}; absent-sites = stop")
        if missing == asked:
            raise FederationStopped(
                f"round {self._sites.round.number}: no site could take part: {self._sites.reasons()}"
            )
        if missing and (self.authority is not None or kind != CONTRIBUTE):
            # Masks are left that do not cancel, or sums are in that answers would be missing for.
            raise _Again(missing)
        return [reply for reply in replies if reply.node in added], total

    def _give_out(self, number: int, release: Release, *, again: bool = False) -> dict[str, float]:
        """Give a release to every site that is there; return the mean of what those say that are asked to evaluate."""
        nodes = self._sites.nodes()
        few = self.settings.fraction_evaluate
        asked = set(nodes[: round(few * len(nodes))])
        choice = json.dumps(asdict(release.choice))
        about = {ROUND: number, ROUND_ID: self._round_id, RELEASE: choice, DIGEST: release.digest()}
        arrays = ArrayRecord({name: Array(array) for name, array in release.arrays().items()})
        content = {node: {**about, AGAIN: again, TAKE_OVER: node not in asked} for node in nodes}
        replies = self._sites.ask(TAKE_RELEASE, content, arrays)
        self._sites.note_silence(set(nodes) - {reply.node for reply in replies})
        told = {
            reply.site: {name: float(value) for name, value in reply.metrics.items()}  # type: ignore[arg-type]
            for reply in replies
        }
        self._sites.round.sites = sorted(told)
        if told and (lacking := self.given_out(release.digest(), self._sites.round.sites)):
            logger.warning(
                "round %d: %s did not take the release over, so deletions wait for it; they are completed by a round "
                "in which every site that takes part does",
                *(number, ", ".join(sorted(lacking))),
            )
        self._sites.round.evaluation = {site: metrics for site, metrics in told.items() if metrics}
        contents = [
            RecordDict({METRICS: MetricRecord(dict(metrics))}) for metrics in self._sites.round.evaluation.values()
        ]
        averaged = average_over_sites(contents, "") if contents else MetricRecord()
        return {name: float(value) for name, value in averaged.items()}  # type: ignore[arg-type]


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


def _contributed(reply: SiteReply) -> SiteContribution:
    return SiteContribution(reply.site, reply.whole(LAST_ORDER), str(reply.config.get(STATEMENT, "")).encode())


def _without(nodes: Collection[int]) -> str:
    return f" without {count_of(len(nodes), 'site')}" if nodes else ": records were deleted meanwhile"
