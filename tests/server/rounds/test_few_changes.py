"""Weights of which too few records are others than in those before are released only where that is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedmunkey.client.records.dataset import Split
from fedmunkey.common.closed_form.release import read_release
from fedmunkey.common.deletions.renewals import StillHeld
from fedmunkey.common.deletions.words import RequestState
from fedmunkey.common.errors import FederationStopped
from fedmunkey.common.programs.round_messages import CONTRIBUTE, TAKE_RELEASE
from fedmunkey.common.proofs.contributions import ReleaseNote
from fedmunkey.common.proofs.signing.canonical import parse_canonical
from fedmunkey.common.service.wire import need_from_wire, need_to_wire
from fedmunkey.server.deletions.ledger_service import LedgerService
from fedmunkey.server.deletions.listener import DeletionServer
from fedmunkey.server.ledger.ledger import Ledger
from fedmunkey.server.rounds.run_record import LAST, RunRecord
from fedmunkey.server.rounds.solving_rounds import SolvingRounds
from fedmunkey.server.transparency_log.leaves import LeafKind
from fedmunkey.server.transparency_log.log import TransparencyLog
from tests.proof_case import LOG
from tests.solved_sites import (
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
FEWEST = 10


@dataclass
class Federation:
    """Three hospitals and a ledger, whose weights were solved for once."""

    folder: Path
    hospitals: list[Hospital]
    service: LedgerService
    asked: list[tuple[str, int]] = field(default_factory=list)

    def solve(self, **changes: Any) -> None:
        """Run a round, as the coordinator's app does."""
        settings = self.hospitals[0].settings.replace(fewest_changed=FEWEST, **changes)
        grid, output = SitesGrid(self.hospitals, unchanged), Path(settings.output_dir)
        self.asked = grid.asked
        with RunRecord(output / str(len(list(output.glob("*")))), {}) as record:
            SolvingRounds(
                *(grid.grid, settings, feature_map(settings), record, self.service.open_round),
                released=self.service.note_release,
                given_out=self.service.note_given_out,
                need=self.service.renewal_need,
            ).run()

    def release_again(self, digest: str) -> None:
        """Give earlier weights to all hospitals, as far as the ledger can tell."""
        self.service.ledger.release_again(digest)
        assert not self.service.note_given_out(
            digest, [f"hospital-{node}" for node in range(1, 1 + len(self.hospitals))]
        )

    def forget(self, node: int, *rows: int, heard: bool = True) -> None:
        """Have a hospital erase some digits; where that is not heard of, its answer is still on its way."""
        name = f"hospital-{node}"
        after = self.service.ledger.last_number(name)
        self.service.submit(deletion_of(name, *rows))
        with self.hospitals[node - 1].folder.open() as store:
            for order in list(self.service.watch(name, after)):
                answer = store.orders.apply(order)
                if heard:
                    self.service.acknowledge(answer)

    def written(self) -> dict[Path, bytes]:
        """Return the weights that each run has left."""
        return {path: path.read_bytes() for path in (self.folder / "output").glob(f"*/{LAST}")}

    def held(self) -> set[str]:
        """Return the digests of the weights that hospitals have."""
        return {read_release(hospital.folder.shared_weights).digest() for hospital in self.hospitals}

    def noted(self) -> list[ReleaseNote]:
        """Return what the log says of each release."""
        log, notes = TransparencyLog(self.service.ledger.engine, LOG), list[ReleaseNote]()
        while (content := log.content(LeafKind.RELEASE, str(len(notes) + 1))) is not None:
            notes.append(ReleaseNote.from_document(parse_canonical(content, "a leaf")))
        return notes

    def is_refused(self, changed: int) -> None:
        """Check that a round is refused, and that no site and no log has anything of it."""
        before, notes = self.held(), self.noted()
        written = self.written()
        with pytest.raises(
            FederationStopped, match=f"^{changed} records? ha(ve|s) changed .* fewest-changed = {FEWEST}"
        ):
            self.solve()
        assert {kind for kind, _ in self.asked} == {CONTRIBUTE}
        assert (self.held(), self.noted()) == (before, notes)
        assert self.written() == written

    def is_released(self, changed: int, **settings: Any) -> None:
        """Check that a round is not refused, that every site has it, and that the log says how many have changed."""
        self.solve(**settings)
        last = self.noted()[-1]
        assert last.changed == changed
        assert self.held() == {last.release}
        assert {kind for kind, _ in self.asked} >= {TAKE_RELEASE}


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for number in range(1, 4):
            ledger.register(f"hospital-{number}")
        service = LedgerService(ledger)
        with DeletionServer(service) as server:
            settings = solved_settings(tmp_path, server.address)
            hospitals = [
                make_hospital(tmp_path, number, settings, [digits(rows)]) for number, rows in enumerate(EVEN, 1)
            ]
            federation = Federation(tmp_path, hospitals, service)
            federation.solve()
            yield federation
        service.close()


def test_first_weights_and_equal_ones_are_released(federation: Federation) -> None:
    first = federation.held()

    federation.is_released(0)

    assert [note.changed for note in federation.noted()] == [60, 0]
    assert federation.held() == first


def test_fewer_deletions_wait_and_as_many_are_released(federation: Federation) -> None:
    federation.forget(2, *range(20, 29))
    federation.is_refused(9)
    waits = federation.service.get("request-20").state
    federation.forget(3, 40)

    federation.is_released(10)

    assert waits is RequestState.ERASED
    assert {federation.service.get(f"request-{row}").state for row in (20, 40)} == {RequestState.COMPLETED}
    assert federation.service.renewal_need().records == 50


def test_refusal_says_until_when_it_waits_and_how_not_to(federation: Federation) -> None:
    federation.forget(2, 20)
    by = federation.service.get("request-20").renew_by
    assert by is not None

    with pytest.raises(FederationStopped) as stopped:
        federation.solve()

    assert f"or until {by:%Y-%m-%d %H:%M} UTC, when it is due" in str(stopped.value)
    assert "--now (release-now = true)" in str(stopped.value)


def test_few_are_released_where_the_officer_says_so_and_the_log_says_how_many(federation: Federation) -> None:
    federation.forget(2, 20, 21)

    federation.is_released(2, release_now=True)

    assert federation.service.get("request-20").state is RequestState.COMPLETED


def test_arrivals_count_as_deletions_do(federation: Federation) -> None:
    federation.hospitals[0].enrol(digits(range(60, 69)))
    federation.is_refused(9)
    federation.hospitals[2].enrol(digits([69]))

    federation.is_released(10)


def test_arrivals_do_not_make_up_for_deletions(federation: Federation) -> None:
    federation.forget(1, 0, 1, 2, 3)
    federation.hospitals[1].enrol(digits(range(60, 65)))
    federation.is_refused(9)
    federation.hospitals[2].enrol(digits([65]))

    federation.is_released(10)


def test_deletions_that_the_coordinator_has_not_heard_of_count_by_the_total(federation: Federation) -> None:
    federation.forget(1, 0, 1, 2, heard=False)

    federation.is_refused(3)


def test_releases_that_were_undone_count_as_the_last_one_does(federation: Federation) -> None:
    (first,) = federation.held()
    federation.hospitals[0].enrol(digits(range(60, 72)))
    federation.is_released(12)
    federation.release_again(first)
    federation.hospitals[0].enrol(digits([72]))

    # 13 more than in the weights that are in use again, and one more than in those that somebody may have kept.
    assert federation.service.renewal_need().records == 60
    federation.is_refused(1)

    federation.hospitals[0].enrol(digits(range(73, 82)))
    federation.is_released(10)
    assert federation.service.renewal_need().others == ()


def test_undone_release_goes_over_the_wire(federation: Federation) -> None:
    (first,) = federation.held()
    federation.hospitals[0].enrol(digits(range(60, 72)))
    federation.solve()
    federation.release_again(first)
    need = federation.service.renewal_need()

    assert need_from_wire(need_to_wire(need)) == need
    assert need.others == (StillHeld(0, 72),)


def test_one_record_of_a_hospital_that_stays_away_with_all_others_is_not_told_apart(federation: Federation) -> None:
    federation.forget(1, 0)
    federation.hospitals.pop()

    federation.is_released(21)


def test_held_out_records_change_nothing(federation: Federation) -> None:
    federation.hospitals[0].enrol(digits([70], Split.TEST))

    federation.forget(1, 70)

    assert federation.service.get("request-70").state is RequestState.COMPLETED
    federation.is_released(0)
