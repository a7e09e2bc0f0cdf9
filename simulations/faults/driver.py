"""The course of a run: requests are made while faults are injected, then everything comes to rest and is checked."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common.deletion import DATA_PROTECTION_OFFICER, DeletionRequest, RequestStatus, SiteState, Subject
from common.errors import ServiceUnavailable
from simulations.faults.federation import make_federation
from simulations.faults.injections import INJECTIONS, Backup
from simulations.faults.invariants import Findings, check
from simulations.faults.model import Asked, Named
from simulations.faults.processes import Launcher
from simulations.faults.proxy import CLEAR
from simulations.faults.requests import Drawn, draw_requests
from simulations.faults.run_ledger import RunLedger
from simulations.faults.stage import PRELOAD, FaultStage, Slot
from simulations.faults.submissions import Requesters

WINDOW = 8
"""Requests that are under way together, in any order."""

_REQUESTERS = 3
_DELETIONS_PER_INJECTION = 20
_BACKUP_AT, _DAMAGE_AT = 0.3, 0.6
"""Shares of the requests after which a site is copied, and after which it is damaged and replaced by the copy."""

_ARMED = 0.7
"""How often a process that was killed is followed by one that kills itself at a failpoint."""

_LONGEST_MOMENT = 0.03
_REST_SECONDS = 180.0
"""How long the federation has to come to rest once nothing is done to it any more."""

_WRONG_SECONDS = 3600.0
"""A submission that far from now was stamped by a clock that had jumped; no run takes as long."""


@dataclass(frozen=True)
class FaultRun:
    """What to run.

    Attributes
    ----------
    deletions, kills : int
        How many requests are made, and how many processes are killed meanwhile.
    sites : int
        How many sites there are.
    seed : int
        What happens is drawn from it; when exactly it happens is up to the machine.
    folder : Path
        An empty folder for ledger, key stores and logs.
    agent_entry : str
        The agents' program.
    database : str
        The URL of a PostgreSQL for the ledger, which two services then share; empty for a file and one service.
    """

    deletions: int
    kills: int
    sites: int
    seed: int
    folder: Path
    agent_entry: str = "client.cli:main"
    database: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    wanted : FaultRun
        What was run.
    findings : Findings
        What was found broken.
    kills, injections, submissions : Counter
        What was done, by kind.
    rounds : int
        Rounds of training that a site has held to their end.
    seconds : float
        From the first process to the last check.
    skipped : dict
        Faults that could not be injected, and why.
    """

    wanted: FaultRun
    findings: Findings
    kills: Counter[str]
    injections: Counter[str]
    submissions: Counter[str]
    rounds: int
    seconds: float
    skipped: dict[str, str]


def run(wanted: FaultRun, progress: Callable[[int, str], None]) -> Outcome:
    """Run a federation under faults and check it.

    Parameters
    ----------
    wanted : FaultRun
        What to run.
    progress : callable
        Called with the number of requests finished since the last call, and with what is going on.

    Raises
    ------
    ProcessFault
        If the driver's own processes do not do what they must.
    InvalidSetting
        If the database cannot be used.
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


def _run(wanted: FaultRun, ledger: RunLedger, progress: Callable[[int, str], None]) -> Outcome:
    chance = random.Random(wanted.seed)  # noqa: S311 (chance, no secret)
    began = time.monotonic()
    progress(0, "making sites")
    federation = make_federation(wanted.folder, wanted.deletions, wanted.sites, wanted.seed, ledger)
    drawn = draw_requests(federation, wanted.deletions, chance)
    progress(0, "starting programs")
    with Launcher(PRELOAD) as launcher, FaultStage(federation, launcher, chance, wanted.agent_entry) as stage:
        progress(0, "first round of training")
        stage.await_training()
        with ThreadPoolExecutor(_REQUESTERS) as pool:
            requesters = Requesters(stage, pool, chance)
            course = _Course(wanted, stage, requesters, chance, progress)
            try:
                course.run(drawn)
            except BaseException:
                requesters.stop()
                raise
        progress(0, "coming to rest")
        statuses = course.come_to_rest()
        stage.stop()
        progress(0, "checking")
        findings = check(federation, statuses, requesters.contents)
        findings.broken += stage.surprises
    return Outcome(
        wanted,
        findings,
        stage.kills,
        course.injections,
        requesters.made,
        stage.count_rounds(),
        time.monotonic() - began,
        course.skipped(statuses),
    )


class _Course:
    """The requests of a run and what is done meanwhile."""

    def __init__(
        self,
        wanted: FaultRun,
        stage: FaultStage,
        requesters: Requesters,
        chance: random.Random,
        progress: Callable[[int, str], None],
    ) -> None:
        self._wanted, self._stage, self._requesters = wanted, stage, requesters
        self._chance, self._progress = chance, progress
        self._backup = Backup(stage, chance.choice(stage.federation.sites))
        self._backup_site = self._backup.site
        self._due = 0.0
        self._copied = self._damaged = False
        self.injections: Counter[str] = Counter()

    def run(self, drawn: list[Drawn]) -> None:
        """Make every request; faults are spread evenly over them."""
        todo = self._draw_injections()
        for first in range(0, len(drawn), WINDOW):
            window = drawn[first : first + WINDOW]
            under_way = self._requesters.submit(window)
            share = (first + len(window)) / len(drawn)
            self._disturb(share)
            while todo and todo[-1][0] <= share:
                self._inject(todo.pop()[1])
            self._copy_or_damage(share)
            self._await(under_way)
            self._progress(len(window), f"{self._stage.killed} kills")

    def come_to_rest(self) -> list[RequestStatus]:
        """Take every fault away, carry out the kills that are left, and return what the service says in the end."""
        stage = self._stage
        for proxy in stage.proxies.values():
            proxy.set(CLEAR)
        stage.federation.clock.jump(0)
        for slot in stage.slots:
            stage.tend()
            if slot.armed:
                stage.kill(slot)
            elif slot.plan is not None:
                stage.replace(slot)
        while stage.killed < self._wanted.kills:
            self._kill(self._chance.choice(stage.slots))
        deadline = time.monotonic() + _REST_SECONDS
        while True:
            stage.tend()
            statuses = stage.statuses()
            if all(status.state.final for status in statuses) or time.monotonic() > deadline:
                return statuses
            time.sleep(0.2)

    def skipped(self, statuses: list[RequestStatus]) -> dict[str, str]:
        """Return what was to be injected and was not, or without effect, with the reason."""
        found = {}
        jumped = sum(abs(status.submitted_at.timestamp() - time.time()) > _WRONG_SECONDS for status in statuses)
        if self.injections["jump_clock"] and not jumped:
            found["jump_clock"] = "no request was submitted while the clock was wrong"
        if not self._damaged:
            found["damaged key store"] = "the run was too short"
        return found

    def _disturb(self, share: float) -> None:
        """Kill as many processes as are due by now; most are followed by one that kills itself at a failpoint."""
        stage = self._stage
        stage.tend()
        while stage.killed + stage.armed < round(share * self._wanted.kills):
            slot = stage.draw()
            two_are_left = stage.killed + stage.armed + 2 <= self._wanted.kills
            if two_are_left and not slot.armed and self._chance.random() < _ARMED:
                stage.arm(slot)
            else:
                self._kill(slot)

    def _kill(self, slot: Slot) -> None:
        time.sleep(self._chance.uniform(0, _LONGEST_MOMENT))
        self._stage.kill(slot)

    def _draw_injections(self) -> list[tuple[float, Callable[[FaultStage], None]]]:
        """Return injections and when they are due as shares of the requests, last first; every kind comes up."""
        count = max(len(INJECTIONS), self._wanted.deletions // _DELETIONS_PER_INJECTION)
        kinds = [INJECTIONS[index % len(INJECTIONS)] for index in range(count)]
        self._chance.shuffle(kinds)
        return [((index + 1) / count, kind) for index, kind in enumerate(kinds)][::-1]

    def _inject(self, injection: Callable[[FaultStage], None]) -> None:
        self._stage.tend()
        injection(self._stage)
        self.injections[injection.__name__] += 1

    def _copy_or_damage(self, share: float) -> None:
        if not self._copied and share >= _BACKUP_AT:
            self._backup.make()
            self._copied = True
        elif not self._damaged and share >= _DAMAGE_AT:
            self._backup.damage_and_restore(self._ask_meanwhile)
            self._damaged = True
            self.injections["damaged key store"] += 1

    def _ask_meanwhile(self) -> None:
        """Make a request that a damaged site cannot carry out; it must stay pending."""
        stage, request_id = self._stage, "request-while-damaged"
        reference = stage.federation.subject_reference(0)
        request = DeletionRequest(request_id, DATA_PROTECTION_OFFICER, Subject(reference))
        asked = Asked(request_id, Named(subject=0), tuple(site.name for site in stage.federation.sites))
        self._await(self._requesters.submit([Drawn(request, asked)]))
        status = self._persist(lambda: stage.channel.get(request_id))
        (state,) = [progress.state for progress in status.sites if progress.site == self._backup_site.name]
        if state is not SiteState.PENDING:
            stage.surprises.append(f"a site whose key store is damaged has answered: {state}")

    def _persist(self, ask: Callable[[], RequestStatus]) -> RequestStatus:
        for _ in range(100):
            self._stage.tend()
            try:
                return ask()
            except ServiceUnavailable:
                time.sleep(0.1)
        return ask()

    def _await(self, under_way: list[Future[None]]) -> None:
        """Wait for requesters, filling the places of processes that end meanwhile."""
        for request in under_way:
            while not request.done():
                self._stage.tend()
                time.sleep(0.005)
            request.result()
