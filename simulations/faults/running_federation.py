"""A federation that runs: a deletion service, agents and training behind proxies, tended while they are killed."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from fedmunkey.common.deletions.words import RequestStatus
from fedmunkey.common.errors import ServiceUnavailable
from fedmunkey.common.failpoints import VARIABLE as FAILPOINTS
from fedmunkey.common.failpoints import Act, Action, Failpoint, FailpointPlan
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.simulations.faults.federation import TRAINED, Federation, Site
from fedmunkey.simulations.faults.invariants import BrokenPromises
from fedmunkey.simulations.faults.processes import Launcher, Process, ProcessFault, Program, wait_until
from fedmunkey.simulations.faults.proxy import Proxy
from fedmunkey.simulations.faults.timed_programs import VARIABLE as CLOCK
from fedmunkey.simulations.programs.free_ports import HOST, free_ports

_Answer = TypeVar("_Answer")

PATIENCE = 120.0
"""Seconds that anything may take which must happen, on a machine that has much else to do."""

_CALL_SECONDS = 3.0
"""Of a requester's call, after which it tries again."""

RANDOM_TIME = "at a random time"
"""How a kill is counted that no failpoint carried out."""

REFUSED = 2
"""The exit code of a program that cannot use what it was given."""

_PASSES = 3
"""A failpoint kills at one of so many times of coming by."""

# PyTorch imports the last one at an optimiser's first step, which would take each training process two seconds.
PRELOAD = (
    "fedmunkey.client.commands.enrol",
    "fedmunkey.client.commands.orders",
    "fedmunkey.client.commands.predict",
    "fedmunkey.client.commands.restore",
    "fedmunkey.simulations.faults.timed_programs",
    "torch._dynamo",
)
"""What a process may import, imported once before any is forked."""


class ProcessRole(StrEnum):
    """What a process is to the federation."""

    SERVER = "server"
    AGENT = "agent"
    TRAINING = "training"

    @property
    def failpoints(self) -> list[Failpoint]:
        """The failpoints that a process in this role comes by."""
        prefixes = {
            ProcessRole.SERVER: ("submit.", "dispatch.", "acknowledge.", "round."),
            ProcessRole.AGENT: ("apply.", "answer."),
            ProcessRole.TRAINING: ("train.", "write-back."),
        }
        return [point for point in Failpoint if point.startswith(prefixes[self])]


@dataclass
class Slot:
    """A place in the federation that one process after another fills, and the failpoints that the last was given.

    If it is `held`, the place stays empty for the time being.
    """

    role: ProcessRole
    site: Site | None
    program: Program
    process: Process
    plan: FailpointPlan | None = None
    held: bool = False

    @property
    def armed(self) -> bool:
        """Whether its process is going to kill itself."""
        actions = self.plan.actions.values() if self.plan else ()
        return any(action.act is Act.KILL for action in actions)


class RunningFederation:
    """A running federation, in which chance draws who is killed, where and when."""

    def __init__(
        self,
        federation: Federation,
        launcher: Launcher,
        chance: random.Random,
        agent_entry: str = "",
    ) -> None:
        self.federation, self.chance = federation, chance
        self._launcher, self._agent_entry = launcher, agent_entry
        self._stack = ExitStack()
        self._points = {role: _forever(role.failpoints, chance) for role in ProcessRole}
        self.slots: list[Slot] = []
        self.proxies: dict[str, Proxy] = {}
        # By failpoint.
        self.kills: Counter[str] = Counter()
        self.findings = BrokenPromises()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self) -> None:
        # A service must be found where it was when it is started again.
        addresses = [f"{HOST}:{port}" for port in free_ports(self.federation.run_ledger.services)]
        for index, name in enumerate(("requests", *(site.name for site in self.federation.sites))):
            # Where there are two services, requests come to one, and half of the sites follow the other.
            self.proxies[name] = self._stack.enter_context(Proxy(addresses[index % len(addresses)]))
        self.channel = self._stack.enter_context(DeletionChannel(self.proxies["requests"].address, _CALL_SECONDS))
        for address in addresses:
            self._add(ProcessRole.SERVER, None, self.federation.server(address))
        for index, site in enumerate(self.federation.sites):
            proxied = self.proxies[site.name].address
            agent = self.federation.agent(site, proxied, self._agent_entry)
            self._add(ProcessRole.AGENT, site, agent)
            self._add(ProcessRole.TRAINING, site, self.federation.trainer(site, proxied, seed=index))
            if index == 0:
                # Two agents follow the orders of one site: an order must be applied once all the same.
                self._add(ProcessRole.AGENT, site, agent)
        wait_until(self._answers, PATIENCE, "the deletion service's first answer")

    # Processes.

    def start(self, slot: Slot, plan: FailpointPlan | None = None) -> None:
        """Fill a place, with failpoints or without."""
        slot.process, slot.plan, slot.held = self._start(slot.program, plan), plan, False

    def _add(self, role: ProcessRole, site: Site | None, program: Program) -> None:
        self.slots.append(Slot(role, site, program, self._start(program, None)))

    def _start(self, program: Program, plan: FailpointPlan | None) -> Process:
        environment = {CLOCK: str(self.federation.folder), FAILPOINTS: str(plan) if plan else ""}
        return self._launcher.start(program, environment)

    def tend(self) -> None:
        """Fill every place whose process has ended, and note those that nobody has ended."""
        for slot in self.slots:
            if not slot.held and slot.process.ended.is_set():
                self._count(slot, 0)
                self.start(slot)

    def kill(self, slot: Slot, plan: FailpointPlan | None = None) -> None:
        """End a process with SIGKILL, whatever it is doing, and fill its place again, with failpoints or without."""
        self.tend()
        if slot.held:
            return
        slot.process.signal(signal.SIGKILL)
        slot.process.wait(PATIENCE)
        slot.plan = None
        self._count(slot, 0)
        self.start(slot, plan)

    def arm(self, slot: Slot) -> None:
        """Kill a process, and have the next one kill itself at a failpoint; all failpoints have their turn."""
        action = Action(Act.KILL, at=self.chance.randint(1, _PASSES))
        self.kill(slot, FailpointPlan({next(self._points[slot.role]): action}))

    def draw(self) -> Slot:
        """Draw a place whose process is to be killed: every role as often, and none that is going to kill itself.

        If all are going to, it is one of them.
        """
        free = [slot for slot in self.slots if not slot.armed] or self.slots
        role = self.chance.choice(sorted({slot.role for slot in free}))
        return self.chance.choice([slot for slot in free if slot.role is role])

    def replace(self, slot: Slot, plan: FailpointPlan | None = None) -> None:
        """Stop a process as an operator would, and start it again, with failpoints or without."""
        self.hold(slot)
        self.start(slot, plan)

    def hold(self, slot: Slot, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a process, and leave its place empty until it is started again."""
        if slot.held:
            return
        slot.process.signal(how)
        slot.process.wait(PATIENCE)
        self._count(slot, 0, -signal.SIGTERM)
        slot.held = True

    @contextmanager
    def stopped(self, slots: Sequence[Slot], how: signal.Signals = signal.SIGTERM) -> Iterator[None]:
        """Keep some places empty meanwhile."""
        for slot in slots:
            self.hold(slot, how)
        yield
        for slot in slots:
            self.start(slot)

    def operate(self, program: Program) -> tuple[int, str]:
        """Run what a person types to its end, and return its exit code and what it has said."""
        ((code, said),) = self.operate_together([program])
        return code, said

    def operate_together(self, programs: Sequence[Program]) -> list[tuple[int, str]]:
        """Run what several people type at the same time, each with a log of its own."""
        sizes = [program.log.stat().st_size if program.log.exists() else 0 for program in programs]
        processes = [self._start(program, None) for program in programs]
        self.await_so(lambda: all(process.ended.is_set() for process in processes), f"the end of {programs[0].words}")
        outcomes = []
        for program, process, size in zip(programs, processes, sizes, strict=True):
            with program.log.open(errors="replace") as log:
                log.seek(size)
                outcomes.append((process.wait(PATIENCE), log.read()))
        return outcomes

    def expect_refusal(self, slot: Slot, words: str, when: str) -> None:
        """See that the program of an empty place ends with one line that has some words; the place stays empty."""
        self.start(slot)
        wait_until(slot.process.ended.is_set, PATIENCE, f"the end of an agent {when}")
        slot.held = True
        said = slot.program.log.read_text(errors="replace").splitlines()[-1]
        if slot.process.code != REFUSED or not said.startswith("error: ") or words not in said:
            self.findings.broken.append(f"{when} an agent ended with code {slot.process.code}: {said}")

    def await_so(self, so: Callable[[], object], what: str) -> None:
        """Wait until something is so, filling the places of processes that end meanwhile."""

        def look() -> object:
            self.tend()
            return so()

        wait_until(look, PATIENCE, what)

    @property
    def killed(self) -> int:
        """How many processes have ended by SIGKILL."""
        return self.kills.total()

    @property
    def armed(self) -> int:
        """How many processes are going to kill themselves."""
        return sum(slot.armed and not slot.held for slot in self.slots)

    def at(self, site: Site, *roles: ProcessRole) -> list[Slot]:
        """Return the places of a site, of some roles or all."""
        return [slot for slot in self.slots if slot.site is site and (not roles or slot.role in roles)]

    # What the sites have done.

    def count_rounds(self) -> int:
        """Return how many rounds of training sites have held to their end."""
        return sum(log.read_text(errors="replace").count(TRAINED) for log in self._training_logs() if log.exists())

    def await_training(self) -> None:
        """Wait until every site has trained, so that there are tokens to delete and to come back."""
        logs = self._training_logs()
        wait_until(lambda: all(TRAINED in log.read_text() for log in logs), PATIENCE, "a first round of training")

    def _training_logs(self) -> list[Path]:
        return [slot.program.log for slot in self.slots if slot.role is ProcessRole.TRAINING]

    # What the service says.

    def statuses(self) -> list[RequestStatus]:
        """Return every request."""
        return self.persist(lambda: list(self.channel.requests()))

    def persist(self, ask: Callable[[], _Answer]) -> _Answer:
        """Return what the service answers, which may be killed meanwhile and is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.tend()
            try:
                return ask()
            except ServiceUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop every process in order, agents and training first."""
        for slot in reversed(self.slots):
            self.hold(slot)

    def _count(self, slot: Slot, *codes: int) -> None:
        """Count a process that has ended, by how; with none of the codes, and not killed, it ended by itself."""
        if slot.process.killed:
            self.kills[next(iter(slot.plan.actions)) if slot.armed and slot.plan else RANDOM_TIME] += 1
        elif slot.process.code not in codes or not slot.process.asked:
            self.findings.broken.append(f"a process ({slot.role}) ended by itself with code {slot.process.code}")

    def _answers(self) -> bool:
        self.tend()
        if self.findings.broken:
            raise ProcessFault(f"{self.findings.broken[0]}; see the logs in {self.federation.folder}")
        try:
            self.channel.page("", 1)
        except ServiceUnavailable:
            return False
        return True


def _forever(points: list[Failpoint], chance: random.Random) -> Iterator[Failpoint]:
    """Yield failpoints in one order after another, so that none is left out."""
    while True:
        yield from chance.sample(points, len(points))
