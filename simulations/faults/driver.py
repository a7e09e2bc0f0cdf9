"""The course of a run: requests are made while faults are injected, then everything comes to rest and is checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedmunkey.common.deletions.words import OFFICER, DeletionRequest, RequestStatus, SiteState, Subject
from fedmunkey.simulations.faults.federation import Site, make_federation
from fedmunkey.simulations.faults.injections import INJECTIONS
from fedmunkey.simulations.faults.invariants import BrokenPromises, check
from fedmunkey.simulations.faults.model import ModelRequest, Named
from fedmunkey.simulations.faults.processes import Launcher
from fedmunkey.simulations.faults.proxy import CLEAR
from fedmunkey.simulations.faults.requests import DrawnRequest, draw_requests
from fedmunkey.simulations.faults.restorations import RESTORATIONS, Restorations
from fedmunkey.simulations.faults.run_ledger import RunLedger
from fedmunkey.simulations.faults.running_federation import PRELOAD, RunningFederation, Slot
from fedmunkey.simulations.faults.submissions import Requesters

WINDOW = 8
"""Requests that are under way together, in any order."""

_REQUESTERS = 3
_DELETIONS_PER_INJECTION = 20
_DELETIONS_PER_RESTORATION = 80
_TIME_PASSES = 0.5
"""How often the validity of all requests runs out before something is restored."""
_FIRST_COPY_AT = 0.1
_COPIES = 0.5
"""How often ledger and key stores are copied after something was restored."""
_BACKUP_AT, _DAMAGE_AT = 0.3, 0.6
"""Shares of the requests after which a site is copied, and after which it is damaged and replaced by the copy."""

_ARMED = 0.7
"""How often a process that was killed is followed by one that kills itself at a failpoint."""

_LONGEST_MOMENT = 0.03
_REST_SECONDS = 180.0
"""How long the federation has to come to rest once nothing is done to it any more."""


_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class FaultRun:
    """What to run: how many requests and kills at how many sites, in an empty folder for ledger, key stores and logs.

    What happens is drawn from the seed; when exactly it happens is up to the machine. Where a PostgreSQL is named, the
    ledger is there, and two services share it; otherwise it is a file of one service. `agent_entry` is the agents'
    program.
    """

    deletions: int
    kills: int
    sites: int
    seed: int
    folder: Path
    agent_entry: str = ""
    database: str = ""


@dataclass(frozen=True)
class FaultOutcome:
    """How a run ended: what was found broken, what was done by kind, rounds of training that sites held to their end.

    Its seconds are from the first process to the last check; `skipped` says which faults could not be injected, and
    why.
    """

    wanted: FaultRun
    findings: BrokenPromises
    kills: Counter[str]
    injections: Counter[str]
    submissions: Counter[str]
    rounds: int
    seconds: float
    skipped: dict[str, str]


def run(wanted: FaultRun, progress: Callable[[int, str], None]) -> FaultOutcome:
    """Run a federation under faults and check it.

    `progress` is called with the number of requests finished since the last call, and with what is going on. Raises
    `ProcessFault` if the driver's own processes do not do what they must, `InvalidSetting` if the database cannot be
    used.
    """
    ledger = RunLedger.make(wanted.database, wanted.folder)
    try:
        outcome = _run(wanted, ledger, progress)
    except BaseException:
        ledger.remove()
        raise
    if outcome.findings.clean:
        ledger.remove()
    return outcome


def _run(wanted: FaultRun, ledger: RunLedger, progress: Callable[[int, str], None]) -> FaultOutcome:
    chance = random.Random(wanted.seed)  # noqa: S311 (chance, no secret)
    began = time.monotonic()
    progress(0, "making sites")
    federation = make_federation(wanted.folder, wanted.deletions, wanted.sites, wanted.seed, ledger)
    drawn = draw_requests(federation, wanted.deletions, chance)
    progress(0, "starting programs")
    with Launcher(PRELOAD) as launcher, RunningFederation(federation, launcher, chance, wanted.agent_entry) as running:
        progress(0, "first round of training")
        running.await_training()
        with ThreadPoolExecutor(_REQUESTERS) as pool:
            requesters = Requesters(running, pool, chance)
            course = _Course(wanted, running, requesters, chance, progress)
            try:
                course.run(drawn)
            except BaseException:
                requesters.stop()
                raise
        progress(0, "coming to rest")
        statuses = course.come_to_rest()
        running.stop()
        progress(0, "checking")
        findings = check(federation, statuses, requesters.contents, running.findings)
    return FaultOutcome(
        wanted,
        findings,
        running.kills,
        course.injections,
        requesters.made,
        running.count_rounds(),
        time.monotonic() - began,
        course.skipped(),
    )


class _Course:
    """The requests of a run and what is done meanwhile."""

    def __init__(
        self,
        wanted: FaultRun,
        running: RunningFederation,
        requesters: Requesters,
        chance: random.Random,
        progress: Callable[[int, str], None],
    ) -> None:
        self._wanted, self._running, self._requesters = wanted, running, requesters
        self._chance, self._progress = chance, progress
        self._restorations = Restorations(running, requesters, self._await, wanted.kills)
        self._copied = self._damaged = self._begun = False
        self.injections: Counter[str] = Counter()

    def run(self, drawn: list[DrawnRequest]) -> None:
        """Make every request; faults are spread evenly over them."""
        todo = self._spread(INJECTIONS, _DELETIONS_PER_INJECTION, after=0.0)
        restorations = self._spread(RESTORATIONS, _DELETIONS_PER_RESTORATION, after=_FIRST_COPY_AT)
        for first in range(0, len(drawn), WINDOW):
            window = drawn[first : first + WINDOW]
            under_way = self._requesters.submit(window)
            share = (first + len(window)) / len(drawn)
            self._disturb(share)
            while todo and todo[-1][0] <= share:
                self._inject(todo.pop()[1])
            self._await(under_way)
            self._copy_or_damage(share)
            if not self._begun and share >= _FIRST_COPY_AT:
                self._restorations.copy()
                self._begun = True
            while restorations and restorations[-1][0] <= share:
                self._restore(restorations.pop()[1])
            self._progress(len(window), f"{self._running.killed} kills")

    def come_to_rest(self) -> list[RequestStatus]:
        """Take every fault away, carry out the kills that are left, and return what the service says in the end."""
        running = self._running
        for proxy in running.proxies.values():
            proxy.set(CLEAR)
        running.federation.clock.jump(0)
        for slot in running.slots:
            running.tend()
            if slot.armed:
                running.kill(slot)
            elif slot.plan is not None:
                running.replace(slot)
        while running.killed < self._wanted.kills:
            self._kill(self._chance.choice(running.slots))
        deadline = time.monotonic() + _REST_SECONDS
        while True:
            running.tend()
            statuses = running.statuses()
            if all(status.state.final for status in statuses):
                self._restorations.witness()
                return statuses
            if time.monotonic() > deadline:
                return statuses
            time.sleep(0.2)

    def skipped(self) -> dict[str, str]:
        """Return what was to be injected and was not, or without effect, with the reason."""
        found = {}
        if self.injections["jump_clock"] and not self._requesters.stamped_wrongly:
            found["jump_clock"] = "no request was submitted while the clock was wrong"
        if not self._damaged:
            found["damage_store"] = "the run was too short"
        return found

    def _disturb(self, share: float) -> None:
        """Kill as many processes as are due by now; most are followed by one that kills itself at a failpoint."""
        running = self._running
        running.tend()
        while running.killed + running.armed < round(share * self._wanted.kills):
            slot = running.draw()
            two_are_left = running.killed + running.armed + 2 <= self._wanted.kills
            if two_are_left and not slot.armed and self._chance.random() < _ARMED:
                running.arm(slot)
            else:
                self._kill(slot)

    def _kill(self, slot: Slot) -> None:
        time.sleep(self._chance.uniform(0, _LONGEST_MOMENT))
        self._running.kill(slot)

    def _spread(self, kinds: Sequence[_Kind], deletions: int, after: float) -> list[tuple[float, _Kind]]:
        """Return kinds, each at least once, and when they are due as shares of the requests, last first."""
        count = max(len(kinds), self._wanted.deletions // deletions)
        drawn = [kinds[index % len(kinds)] for index in range(count)]
        self._chance.shuffle(drawn)
        return [(after + (1 - after) * (index + 1) / count, kind) for index, kind in enumerate(drawn)][::-1]

    def _inject(self, injection: Callable[[RunningFederation], None]) -> None:
        self._running.tend()
        injection(self._running)
        self.injections[injection.__name__] += 1

    def _restore(self, restoration: Callable[[Restorations], None]) -> None:
        # A copy of the ledger is a day old at most. Time passes once in any run.
        passes = self._chance.random() < _TIME_PASSES or not self.injections["let_time_pass"]
        if restoration is not Restorations.restore_ledger and passes:
            self._restorations.let_time_pass()
            self.injections["let_time_pass"] += 1
        restoration(self._restorations)
        self.injections[restoration.__name__] += 1
        if self._chance.random() < _COPIES:
            self._restorations.copy()

    def _copy_or_damage(self, share: float) -> None:
        if not self._copied and share >= _BACKUP_AT:
            self._restorations.copy_folder()
            self._copied = True
        elif not self._damaged and share >= _DAMAGE_AT:
            self._restorations.damage_store(self._ask_meanwhile)
            self._damaged = True
            self.injections["damage_store"] += 1

    def _ask_meanwhile(self, damaged: Site) -> None:
        """Make a request that a damaged site cannot carry out; it must stay pending."""
        running, request_id = self._running, "request-while-damaged"
        reference = running.federation.subject_reference(0)
        request = DeletionRequest(request_id, OFFICER, Subject(reference))
        asked = ModelRequest(request_id, Named(subject=0), tuple(site.name for site in running.federation.sites))
        self._await(self._requesters.submit([DrawnRequest(request, asked)]))
        status = running.persist(lambda: running.channel.get(request_id))
        (state,) = [progress.state for progress in status.sites if progress.site == damaged.name]
        if state is not SiteState.PENDING:
            running.findings.broken.append(f"a site whose key store is damaged has answered: {state}")

    def _await(self, under_way: list[Future[None]]) -> None:
        """Wait for requesters, filling the places of processes that end meanwhile."""
        for request in under_way:
            while not request.done():
                self._running.tend()
                time.sleep(0.005)
            request.result()
