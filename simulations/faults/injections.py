"""What is done to a running federation besides killing it: one function for each kind of fault."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fedmunkey.common.failpoints import Act, Action, Failpoint, FailpointPlan
from fedmunkey.simulations.faults.federation import Site, batch
from fedmunkey.simulations.faults.proxy import CLEAR, Conditions
from fedmunkey.simulations.faults.running_federation import ProcessRole, RunningFederation

_LOCK_SECONDS = 0.4
_HOLE_SECONDS = 0.6
_SLOW = Conditions(delay=0.02, bytes_per_second=50_000)
_JUMPS = (-7200.0, 40 * 86_400.0, -40 * 86_400.0)
_REIMPORTED = 20


def cut(running: RunningFederation) -> None:
    """Reset every connection of one site, and every requester's."""
    running.proxies[_site(running).name].cut()
    running.proxies["requests"].cut()


def slow(running: RunningFederation) -> None:
    """Let little pass to and from one site until it is that site's turn again."""
    proxy = running.proxies[_site(running).name]
    proxy.set(CLEAR if running.chance.random() < 0.5 else _SLOW)


def black_hole(running: RunningFederation) -> None:
    """Let nothing pass for a while, without telling anybody; then go on, or reset what was open."""
    proxy = running.proxies[running.chance.choice(sorted(running.proxies))]
    proxy.set(Conditions(black_hole=True))
    time.sleep(_HOLE_SECONDS)
    if running.chance.random() < 0.5:
        proxy.cut()
    proxy.set(CLEAR)


def refuse(running: RunningFederation) -> None:
    """Close a site's connections as soon as they are made, for a while."""
    proxy = running.proxies[_site(running).name]
    proxy.set(Conditions(refusing=True))
    proxy.cut()
    time.sleep(_HOLE_SECONDS)
    proxy.set(CLEAR)


def lock_store(running: RunningFederation) -> None:
    """Hold the write lock of one site's key store, as a process that hangs would."""
    _hold_lock(_site(running).folder.key_store)


def lock_ledger(running: RunningFederation) -> None:
    """Hold the ledger's write lock."""
    running.federation.run_ledger.hold_lock(_LOCK_SECONDS)


def fill_disk(running: RunningFederation) -> None:
    """Let one agent's and one service's disk be full now and then, in the middle of a transaction."""
    full = Action(Act.RAISE, error="FULL", probability=0.3)
    no_space = Action(Act.RAISE, error="ENOSPC", probability=0.3)
    (agent, *_) = running.at(_site(running), ProcessRole.AGENT)
    server = running.chance.choice([slot for slot in running.slots if slot.role is ProcessRole.SERVER])
    plans = {
        id(agent): FailpointPlan({Failpoint.APPLY_BEFORE_COMMIT: full, Failpoint.APPLY_AFTER_COMMIT: no_space}),
        id(server): FailpointPlan({Failpoint.SUBMIT_BEFORE_COMMIT: full, Failpoint.ACKNOWLEDGE_BEFORE_COMMIT: full}),
    }
    for slot in (agent, server):
        if not slot.armed and not slot.held:
            running.replace(slot, plans[id(slot)])


def jump_clock(running: RunningFederation) -> None:
    """Put the service's clock wrong by two hours or forty days."""
    running.federation.clock.jump(running.chance.choice(_JUMPS))


def import_again(running: RunningFederation) -> None:
    """Try to enrol records that a site has deleted; each must be refused."""
    site = _site(running)
    model = running.federation.model.sites[site.name]
    with site.folder.open() as store:
        gone = [n for n in model.labels if not store.records.holds(running.federation.record_reference(n))]
        tried = running.chance.sample(gone, min(len(gone), _REIMPORTED))
        if tried:
            records, encoding = batch(running.federation, tried)
            came = store.records.enrol(records, encoding, running.federation.secret)
            if came.refused != len(tried):
                running.findings.broken.append(f"{came.added} of {len(tried)} deleted records could be enrolled again")


INJECTIONS: tuple[Callable[[RunningFederation], None], ...] = (
    cut,
    slow,
    black_hole,
    refuse,
    lock_store,
    lock_ledger,
    fill_disk,
    jump_clock,
    import_again,
)
"""Those that can be done at any time, by anyone, again and again."""


def _site(running: RunningFederation) -> Site:
    return running.chance.choice(running.federation.sites)


def _hold_lock(database: Path) -> None:
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(_LOCK_SECONDS)
        connection.execute("ROLLBACK")
