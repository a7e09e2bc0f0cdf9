"""The deletion agents of simulated hospitals: one that follows each hospital's stream, or a few that serve many."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from fedmunkey.client.deletions.agent import DeletionAgent, catch_up
from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.common.settings.settings import Settings
from fedmunkey.simulations.federation.hospitals import Hospital

logger = logging.getLogger(__name__)

MOST_FOLLOWING = 32
"""Hospitals above which each having a thread, a stream and open files of its own takes more than a deletion does."""

_AGENTS = 4
"""Agents that serve all hospitals where there are more."""

Hear = Callable[[Iterable[str]], None]
"""Has hospitals, by name, hear orders that were just given; returns at once, or when they have been carried out."""


@contextlib.contextmanager
def running_agents(hospitals: Sequence[Hospital], settings: Settings, *, come_and_go: bool = False) -> Iterator[Hear]:
    """Serve all hospitals' orders while the context lasts; the function that is yielded says who has got some.

    Of hospitals that come and go nothing is held open meanwhile.
    """
    start = _following if len(hospitals) <= MOST_FOLLOWING and not come_and_go else _visiting
    with start(hospitals, settings) as hear:
        yield hear


@contextlib.contextmanager
def _following(hospitals: Sequence[Hospital], settings: Settings) -> Iterator[Hear]:
    """Run one deletion agent for each hospital, each with a key store connection and a channel of its own."""
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        for hospital in hospitals:
            store = stack.enter_context(hospital.folder.open())
            service = DeletionChannel(settings.deletion_service)
            agent = DeletionAgent(store, service)
            thread = threading.Thread(target=_run, args=(agent, stop), name=f"agent-{hospital.name}", daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(service.close)
        stack.callback(stop.set)
        yield lambda _: None


@contextlib.contextmanager
def _visiting(hospitals: Sequence[Hospital], settings: Settings) -> Iterator[Hear]:
    """Run a few agents, which catch up for the hospitals that have got orders, one after the other."""
    folders = {hospital.name: hospital.folder for hospital in hospitals}
    with DeletionChannel(settings.deletion_service) as service, ThreadPoolExecutor(_AGENTS, "agent") as pool:

        def visit(name: str) -> None:
            try:
                with folders[name].open() as store:
                    catch_up(store, service)
            except FedmunkeyError as error:
                logger.error("%s: %s", name, error)

        def hear(names: Iterable[str]) -> None:
            for _ in pool.map(visit, names):
                pass

        yield hear


def _run(agent: DeletionAgent, stop: threading.Event) -> None:
    """Run an agent until it is stopped or the service refuses the site; the site's next round says why, too."""
    try:
        agent.run(stop)
    except FedmunkeyError as error:
        logger.error("%s", error)
