"""Two programs that run a round at the same time, and one that dies before it gives its release out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from flwr.app import Message

from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.deletions.renewals import ReleasedWeights
from fedmunkey.common.deletions.words import RequestState
from fedmunkey.common.errors import FederationStopped, InvalidDeletion
from fedmunkey.common.programs.round_messages import CONTRIBUTE, TAKE_RELEASE
from fedmunkey.common.service.channel import DeletionChannel
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from tests.coordinator import Killed
from tests.solved_sites import (
    Change,
    Hospital,
    SitesGrid,
    deletion_of,
    digits,
    feature_map,
    make_hospital,
    solved_settings,
    unchanged,
)

pytestmark = pytest.mark.usefixtures("within_a_run")

EVEN = (range(0, 20), range(20, 40), range(40, 60))
Released = Callable[[ReleasedWeights], None]


@dataclass
class Program:
    """A program that runs rounds, with a deletion service of its own on a ledger that all share."""

    folder: Path
    """Holds its runs, a folder each."""
    hospitals: list[Hospital]
    service: DeletionChannel

    def solve(self, released: Released | None = None, change: Change = unchanged) -> SitesGrid:
        """Run one round, and return which site was asked for what."""
        settings = self.hospitals[0].settings.replace(fewest_changed=0)
        sites = SitesGrid(self.hospitals, change)
        self.folder.mkdir(exist_ok=True)
        with RunRecord(Path(mkdtemp(dir=self.folder)), {}) as record:
            SolvingRounds(
                *(sites.grid, settings, feature_map(settings), record, self.service.open_round),
                released=released or self.service.note_release,
                given_out=self.service.note_given_out,
                need=self.service.renewal_need,
            ).run()
        return sites

    def forget(self, row: int) -> str:
        """Ask for a digit of the second hospital to be forgotten; it hears so at the next round. Return its name."""
        return self.service.submit(deletion_of("hospital-2", row)).request.request_id

    def held(self) -> set[str]:
        """Return the digests of the weights that the hospitals have."""
        return {read_release(hospital.folder.shared_weights).digest() for hospital in self.hospitals}


@pytest.fixture
def programs(tmp_path: Path, database: str) -> Iterator[tuple[Program, Program]]:
    """Two coordinators' programs on one ledger, of three hospitals that have weights; they ask at the first one's."""
    with ExitStack() as stack:

        def serve() -> DeletionChannel:
            ledger = stack.enter_context(Ledger(database))
            for number in range(1, 4):
                ledger.register(f"hospital-{number}")
            server = stack.enter_context(DeletionServer(LedgerService(ledger)))
            addresses.append(server.address)
            return stack.enter_context(DeletionChannel(server.address))

        addresses: list[str] = []
        services = [serve(), serve()]
        settings = solved_settings(tmp_path, addresses[0], min_sites=3)
        hospitals = [make_hospital(tmp_path, number, settings, [digits(rows)]) for number, rows in enumerate(EVEN, 1)]
        here, there = (Program(tmp_path / f"run-{n}", hospitals, one) for n, one in enumerate(services))
        here.solve()
        yield here, there


def test_renewal_by_one_coordinator_completes_what_was_asked_at_the_other(programs: tuple[Program, Program]) -> None:
    here, there = programs
    before, name = here.held(), here.forget(25)
    with here.hospitals[1].folder.open() as store:
        for order in list(there.service.watch("hospital-2", 0)):
            there.service.acknowledge(store.orders.apply(order))
    waits = here.service.get(name).state

    there.solve()

    assert waits is RequestState.ERASED
    assert here.service.get(name).state is there.service.get(name).state is RequestState.COMPLETED
    assert here.service.renewal_need().entries == 0
    assert len(here.held()) == 1
    assert here.held() != before


def test_round_in_the_middle_of_another_stops_that_one_and_says_why(programs: tuple[Program, Program]) -> None:
    here, there = programs
    name = here.forget(25)
    begun: list[bool] = []

    def another(node: int, message: Message, reply: Message) -> Message:
        if message.metadata.message_type == CONTRIBUTE and node == 3 and not begun:
            begun.append(True)
            there.solve()
        return reply

    with pytest.raises(FederationStopped, match="the coordinator asks for counts over other records than this round's"):
        here.solve(change=another)

    assert begun
    assert here.service.get(name).state is RequestState.COMPLETED
    assert len(here.held()) == 1


def test_weights_of_an_earlier_round_are_not_taken_over_later_ones(programs: tuple[Program, Program]) -> None:
    """What was erased between the two rounds is in the earlier one's weights."""
    here, there = programs
    later: set[str] = set()

    def another_round(released: ReleasedWeights) -> None:
        here.service.note_release(released)
        here.forget(25)
        there.solve()
        later.update(here.held())

    sites = here.solve(another_round)

    assert here.held() == later
    refusals = [reply.error.reason or "" for kind, _, reply in sites.replies if kind == TAKE_RELEASE]
    assert len(refusals) == 3
    assert all("of an earlier round than the one that the site has last contributed to" in why for why in refusals)


def test_weights_of_an_earlier_round_are_not_written_down_after_later_ones(programs: tuple[Program, Program]) -> None:
    here, there = programs
    names: list[str] = []

    def another_round(released: ReleasedWeights) -> None:
        names.append(here.forget(25))
        there.solve()
        here.service.note_release(released)

    with pytest.raises(InvalidDeletion, match=r"'hospital-2' .* after order 0, and to the last release after order 1"):
        here.solve(another_round)

    assert len(here.held()) == 1
    assert here.service.get(names[0]).state is RequestState.COMPLETED
    assert here.service.renewal_need().entries == 0


def test_release_that_no_site_was_given_is_given_by_the_next_round(programs: tuple[Program, Program]) -> None:
    """Sites have the earlier weights until then, and the deletion waits for it."""
    here, there = programs
    before, name = here.held(), here.forget(25)
    solved: list[Any] = []

    def die(released: ReleasedWeights) -> None:
        here.service.note_release(released)
        solved.append(released.digest)
        raise Killed

    with pytest.raises(Killed):
        here.solve(die)
    assert here.service.get(name).state is RequestState.ERASED
    assert here.held() == before

    there.solve()

    assert here.held() == set(solved)
